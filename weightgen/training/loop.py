"""One loop for everything that is trained by gradient: schedule, clipping, progress, resume."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from weightgen.errors import WeightgenError
from weightgen.storage import read_tensors, write_tensors

Progress = Callable[[int, int, str], None]
"""Called with the steps done, the steps in all, and what to show."""


@dataclass(frozen=True)
class LoopConfig:
    """AdamW with a linear warm-up and a cosine to zero.

    Args:
        steps: optimiser steps.
        learning_rate: its highest value.
        warmup: steps until it is reached.
        weight_decay: decoupled.
        gradient_norm: gradients are clipped to this norm.
        save_every: steps between two saved states.
    """

    steps: int
    learning_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.01
    gradient_norm: float = 1.0
    save_every: int = 500

    def rate(self, step: int) -> float:
        ramp = min(1.0, (step + 1) / max(self.warmup, 1))
        return self.learning_rate * ramp * (0.5 + 0.5 * math.cos(math.pi * step / self.steps))


def train(
    module: nn.Module,
    loss: Callable[[int], tuple[Tensor, Mapping[str, float]]],
    config: LoopConfig,
    *,
    identity: Mapping[str, Any] | None = None,
    state: Path | None = None,
    progress: Progress | None = None,
    label: str = "training",
) -> None:
    """Minimises `loss` over the parameters of `module`.

    All randomness must come from torch's global generator, whose state is part of what is saved: a training that was
    killed goes on from `state` and ends where it would have ended.

    Args:
        loss: called with the number of the step; gives the loss and figures to show.
        identity: what else makes this training what it is, as JSON values; a state of another one is not used.
        state: a file for the state; removed at the end.
        progress: called after every step.

    Raises:
        WeightgenError: if the loss is no longer finite.
    """
    optimiser = torch.optim.AdamW(
        [parameter for parameter in module.parameters() if parameter.requires_grad],
        lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98),
    )  # fmt: skip
    content = {
        "loop": asdict(config),
        "shapes": [[name, list(tensor.shape)] for name, tensor in module.state_dict().items()],
        "identity": dict(identity or {}),
    }
    done = _restore(module, optimiser, content, state) if state is not None and state.exists() else 0
    module.train()
    shown: dict[str, float] = {}
    for step in range(done, config.steps):
        for group in optimiser.param_groups:
            group["lr"] = config.rate(step)
        value, figures = loss(step)
        if not value.isfinite():
            raise WeightgenError(f"{label} diverged", where=f"step {step}", got=value.item(), remedy="lower the rate")
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), config.gradient_norm)
        optimiser.step()
        for name, figure in figures.items():
            shown[name] = 0.98 * shown.get(name, figure) + 0.02 * figure
        if progress is not None:
            progress(step + 1, config.steps, f"{label} " + " ".join(f"{name} {shown[name]:.3f}" for name in shown))
        if state is not None and (step + 1) % config.save_every == 0:
            _save(module, optimiser, content, state, step + 1)
    module.eval()
    if state is not None:
        state.unlink(missing_ok=True)


def _save(module: nn.Module, optimiser: torch.optim.Optimizer, content: Mapping, path: Path, done: int) -> None:
    tensors = {f"module/{name}": tensor.clone() for name, tensor in module.state_dict().items()}
    for index, entry in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{name}": value.clone() for name, value in entry.items()}
    tensors["random"] = torch.get_rng_state()
    write_tensors(path, tensors, {"content": content, "done": done})


def _restore(module: nn.Module, optimiser: torch.optim.Optimizer, content: Mapping, path: Path) -> int:
    header, tensors = read_tensors(path)
    if header.get("content") != content:
        return 0
    module.load_state_dict(
        {name.removeprefix("module/"): tensor for name, tensor in tensors.items() if name.startswith("module/")}
    )
    entries: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimiser/"):
            _, index, key = name.split("/")
            entries.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": entries})
    torch.set_rng_state(tensors["random"])
    return header["done"]
