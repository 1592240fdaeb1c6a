"""Many networks of one architecture trained at once, vectorised with `torch.func`.

Every network has its own seed, learning rate, weight decay and order of the data; all of them take one step together.
A killed training goes on from its last saved state and ends with the same bytes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from weightgen.architecture import Architecture
from weightgen.storage import read_tensors, write_tensors
from weightgen.tasks import Task

STATE_EVERY = 500
"""Steps between two saved states."""
EVALUATED_TOGETHER = 256
"""Images that a population sees at once; more are no faster and take gigabytes."""


@dataclass(frozen=True)
class Run:
    """What makes one network of a population differ from the others."""

    seed: int
    learning_rate: float
    weight_decay: float


@dataclass(frozen=True)
class Schedule:
    """What all networks of a population share: Adam with decoupled weight decay, the rate falling linearly to 0.

    Args:
        steps: optimiser steps.
        batch: images a network sees in a step.
    """

    steps: int
    batch: int = 64


def functional(architecture: Architecture) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    """The architecture as a pure function (tensors, images `[n, …]`) → logits `[n, classes]`."""
    with torch.device("meta"):
        module = architecture.build()
    return lambda tensors, images: torch.func.functional_call(module, tensors, (images,))


def population_logits(architecture: Architecture) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    """All networks on their own images.

    A function (tensors `[networks, …]`, images `[networks, n, …]`) → logits `[networks, n, classes]`.
    """
    return torch.func.vmap(functional(architecture))


def shared_logits(architecture: Architecture) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    """All networks on the same images.

    A function (tensors `[networks, …]`, images `[n, …]`) → logits `[networks, n, classes]`.
    """
    return torch.func.vmap(functional(architecture), in_dims=(0, None))


@torch.no_grad()
def population_predictions(architecture: Architecture, tensors: dict[str, Tensor], images: Tensor) -> Tensor:
    """The class each network gives to each image: int64 `[networks, n]`."""
    call = shared_logits(architecture)
    return torch.cat([call(tensors, part).argmax(-1) for part in images.split(EVALUATED_TOGETHER)], dim=1)


@torch.no_grad()
def population_probabilities(
    architecture: Architecture, tensors: Mapping[str, Tensor], images: Tensor, kind: torch.dtype = torch.float32
) -> Tensor:
    """The class probabilities each network gives to each image, `[networks, n, classes]` of the given kind."""
    call = shared_logits(architecture)
    parts = images.split(EVALUATED_TOGETHER)
    return torch.cat([call(dict(tensors), part).softmax(-1).to(kind) for part in parts], dim=1)


def stack(state_dicts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """State dicts of one architecture as one dict of `[networks, …]` float32 tensors."""
    return {name: torch.stack([state[name].float() for state in state_dicts]) for name in state_dicts[0]}


def unstack(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The inverse of `stack`."""
    count = len(next(iter(tensors.values())))
    return [{name: tensor[index].clone() for name, tensor in tensors.items()} for index in range(count)]


def initial(architecture: Architecture, seeds: Sequence[int]) -> dict[str, Tensor]:
    """Fresh networks, one a seed, as `[networks, …]` tensors; the global random state is left as it was."""
    states = []
    with torch.random.fork_rng(devices=[]):
        for seed in seeds:
            torch.manual_seed(seed)
            states.append(architecture.build().state_dict())
    return stack(states)


def train_population(
    architecture: Architecture,
    task: Task,
    runs: Sequence[Run],
    schedule: Schedule,
    *,
    start: dict[str, Tensor] | None = None,
    state: Path | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> dict[str, Tensor]:
    """Trains one network a run and returns their tensors, `[networks, …]`.

    Args:
        start: tensors `[networks, …]` to go on from; fresh ones by each run's seed if None.
        state: a file that holds the training's state while it runs, and from which it resumes.
        progress: called after each step with the number of steps done and the mean loss.
    """
    images, labels = task.train()
    rates = torch.tensor([run.learning_rate for run in runs])
    decays = torch.tensor([run.weight_decay for run in runs])
    tensors = start if start is not None else initial(architecture, [run.seed for run in runs])
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    first = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    second = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    identity = {
        "architecture": str(architecture),
        "task": task.name,
        "digest": task.digest,
        "preprocessing": asdict(task.preprocessing),
        "runs": [asdict(run) for run in runs],
        **asdict(schedule),
    }
    done = 0
    if state is not None and state.exists():
        header, saved = read_tensors(state)
        if header["identity"] == identity:
            done = header["done"]
            for part, values in (("weights", tensors), ("first", first), ("second", second)):
                for name in values:
                    values[name] = saved[f"{part}/{name}"]

    call = population_logits(architecture)

    def losses(parameters: dict[str, Tensor], index: Tensor) -> Tensor:
        logits = call(parameters, images[index])
        return nn.functional.cross_entropy(logits.flatten(0, 1), labels[index].flatten(), reduction="none").view(
            index.shape
        )

    order = _Order([run.seed for run in runs], len(labels), schedule.batch)
    order.skip(done)
    for step in range(done, schedule.steps):
        parameters = {name: tensor.requires_grad_() for name, tensor in tensors.items()}
        loss = losses(parameters, order.next())
        # A sum over networks gives each network its own gradient, the mean over its own images.
        gradients = torch.autograd.grad(loss.mean(1).sum(), list(parameters.values()))
        with torch.no_grad():
            rate = rates * (1 - step / schedule.steps)
            for (name, tensor), gradient in zip(tensors.items(), gradients, strict=True):
                shape = (-1,) + (1,) * (tensor.dim() - 1)
                first[name].lerp_(gradient, 0.1)
                second[name].lerp_(gradient * gradient, 0.001)
                mean = first[name] / (1 - 0.9 ** (step + 1))
                scale = (second[name] / (1 - 0.999 ** (step + 1))).sqrt_().add_(1e-8)
                kept = 1 - (rate * decays).view(shape)
                tensors[name] = tensor.detach() * kept - rate.view(shape) * mean / scale
        if progress is not None:
            progress(step + 1, loss.mean().item())
        if state is not None and (step + 1) % STATE_EVERY == 0:
            parts = {"weights": tensors, "first": first, "second": second}
            flat = {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}
            write_tensors(state, flat, {"identity": identity, "done": step + 1})
    return {name: tensor.detach() for name, tensor in tensors.items()}


class _Order:
    """The order in which each network sees the data: its own shuffle every epoch."""

    def __init__(self, seeds: Sequence[int], examples: int, batch: int) -> None:
        self.generators = [torch.Generator().manual_seed(seed + 1_000_003) for seed in seeds]
        self.examples = examples
        self.batch = batch
        self.position = examples
        self.permutations = torch.empty(0)

    def next(self) -> Tensor:
        """Indices int64 `[networks, batch]`."""
        if self.position + self.batch > self.examples:
            self.permutations = torch.stack(
                [torch.randperm(self.examples, generator=generator) for generator in self.generators]
            )
            self.position = 0
        self.position += self.batch
        return self.permutations[:, self.position - self.batch : self.position]

    def skip(self, steps: int) -> None:
        for _ in range(steps):
            self.next()
