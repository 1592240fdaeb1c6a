"""Fits many fields at once, each from its own random start and each until it is good enough."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from weightgen.errors import WeightgenError
from weightgen.fields.kinds import KINDS, Kind
from weightgen.fields.signals import Samples
from weightgen.fields.surfaces import measure
from weightgen.fields.triplane import TriPlaneConfig, evaluate, initial
from weightgen.registry import unknown_name

Fields = dict[str, Tensor]
Losses = Callable[[Fields, Tensor], Tensor]
"""Fields `[alive, …]` and their numbers → the loss of each, `[alive]`."""
Measure = Callable[[Fields, Tensor], Tensor]
"""Fields `[alive, …]` and their numbers → how good each is, `[alive]`."""
Told = Callable[[int, int, str], None]
"""Called with the steps done, the steps in all, and what to show."""


@dataclass(frozen=True)
class Fitting:
    """How fields are fitted: Adam, its rate falling along a cosine to a tenth.

    Args:
        steps: at most.
        points: points a field sees in a step.
        plane_rate: learning rate of the planes.
        decoder_rate: learning rate of the decoder.
        target: a field that is as good as this is done: at least for IoU and PSNR, at most for Chamfer distance.
        look_every: steps between two looks at how good they are.

    Raises:
        WeightgenError: for a number that makes no fitting.
    """

    steps: int = 400
    points: int = 1024
    plane_rate: float = 3e-2
    decoder_rate: float = 2e-3
    target: float | None = None
    look_every: int = 100

    def __post_init__(self) -> None:
        for name in ("steps", "points", "plane_rate", "decoder_rate", "look_every"):
            if not 0 < getattr(self, name) < math.inf:
                raise WeightgenError("a fitting needs more than nothing", where=name, got=getattr(self, name))

    def rate(self, step: int) -> float:
        """The share of the learning rates that holds at a step."""
        return 0.55 + 0.45 * math.cos(math.pi * step / self.steps)


@dataclass(frozen=True)
class Fitted:
    """Fields that were fitted.

    Args:
        tensors: `[fields, …]`.
        steps: int64 `[fields]`, how many each took.
        losses: `[fields]`, the last of each.
        figures: name → `[fields]`: IoU, Chamfer distance or PSNR.
    """

    tensors: Fields
    steps: Tensor
    losses: Tensor
    figures: dict[str, Tensor]


def find_kind(name: str) -> Kind:
    """A kind of field over points.

    Raises:
        UnknownNameError: if there is none of that name.
    """
    if name not in KINDS:
        raise unknown_name("kind of field", name, [*KINDS, "radiance"])
    return KINDS[name]


def fit(
    config: TriPlaneConfig,
    kind: str,
    samples: Samples,
    seeds: Sequence[int],
    fitting: Fitting,
    *,
    told: Told | None = None,
) -> Fitted:
    """Fits one field to each signal that was sampled.

    Args:
        kind: `udf`, `sdf` or `occupancy`.
        seeds: one a field: what its random start is made from.

    Raises:
        UnknownNameError: for another kind.
        WeightgenError: if a fitting diverges.
    """
    what = find_kind(kind)
    targets = what.target(samples.distances)
    generator = torch.Generator().manual_seed(seeds[0])
    count = targets.shape[1]

    def losses(tensors: Fields, alive: Tensor) -> Tensor:
        chosen = torch.randint(count, (len(alive), fitting.points), generator=generator)
        points, wanted = samples.points[alive[:, None], chosen], targets[alive[:, None], chosen]
        return what.loss(evaluate(config, tensors, points)[..., 0], wanted).mean(1)

    def measured(tensors: Fields, alive: Tensor) -> Tensor:
        return measure(config, what, tensors, samples, alive)

    name = "iou" if what.solid else "chamfer"
    return minimise(initial(config, seeds), losses, fitting, name, measured, told)


def minimise(
    tensors: Fields, losses: Losses, fitting: Fitting, figure: str, measured: Measure, told: Told | None = None
) -> Fitted:
    """Takes all fields down their own losses; what has reached the target takes no more steps.

    Args:
        tensors: fresh fields, `[fields, …]`.
        figure: what `measured` gives: `iou`, `psnr` (more is better) or `chamfer` (less is).
    """
    total = len(next(iter(tensors.values())))
    final = {name: tensor.clone() for name, tensor in tensors.items()}
    steps, last, figures = torch.zeros(total, dtype=torch.int64), torch.zeros(total), torch.zeros(total)
    alive = torch.arange(total)
    state = [{name: tensor.clone() for name, tensor in tensors.items()}]
    state += [{name: torch.zeros_like(tensor) for name, tensor in tensors.items()} for _ in range(2)]
    for step in range(1, fitting.steps + 1):
        values = _step(state, losses, alive, step, fitting)
        if told is not None:
            told(step, fitting.steps, f"{len(alive)} fields, loss {values.mean().item():.4f}")
        look = fitting.target is not None and step % fitting.look_every == 0
        if not look and step < fitting.steps:
            continue
        with torch.no_grad():
            now = measured(state[0], alive)
        steps[alive], last[alive], figures[alive] = step, values, now
        for name in final:
            final[name][alive] = state[0][name]
        if look:
            going = now > fitting.target if figure == "chamfer" else now < fitting.target
            alive, state = alive[going], [{name: part[name][going] for name in part} for part in state]
            if not len(alive):
                break
    return Fitted(final, steps, last, {figure: figures})


def _step(state: list[Fields], losses: Losses, alive: Tensor, step: int, fitting: Fitting) -> Tensor:
    """One step of Adam for fields that stand side by side; gives the loss of each."""
    tensors, first, second = state
    leaves = {name: tensor.requires_grad_() for name, tensor in tensors.items()}
    values = losses(leaves, alive)
    if not values.isfinite().all():
        raise WeightgenError(
            "the fitting diverged", where=f"step {step}",
            got=f"{int((~values.isfinite()).sum())} of {len(values)} losses are not finite", remedy="lower the rates",
        )  # fmt: skip
    # A sum over fields gives each its own gradient.
    gradients = torch.autograd.grad(values.sum(), list(leaves.values()))
    with torch.no_grad():
        for (name, tensor), gradient in zip(tensors.items(), gradients, strict=True):
            tensor.requires_grad_(False)
            rate = fitting.rate(step) * (fitting.plane_rate if name == "planes" else fitting.decoder_rate)
            first[name].lerp_(gradient, 0.1)
            second[name].mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            scale = (second[name] / (1 - 0.999**step)).sqrt_().add_(1e-8)
            tensor.addcdiv_(first[name], scale, value=-rate / (1 - 0.9**step))
    return values.detach()
