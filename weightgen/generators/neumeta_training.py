"""How an implicit function of the weights learns to give a good network at every size.

Each step draws one size between the smallest and the largest, asks the function for all weights of that size, and runs
the network of that size on a batch. Norms see the batch; what they need without one, their running statistics, is
measured at the end for a row of sizes, so that a network of any size can be asked for without data.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from weightgen.generators.implicit import ImplicitWeights, Sizes
from weightgen.training.loop import LoopConfig, Progress, train
from weightgen.training.recalibration import recalibrate

STATISTICS = ("running_mean", "running_var")
Network = Callable[[Sizes], nn.Module]
"""Gives the module of these sizes; its tensors are replaced and may stand on the meta device."""


@dataclass(frozen=True)
class NeuMetaTraining:
    """How the function is trained.

    Args:
        loop: optimiser steps and rate.
        batch: images of a step.
        low: the smallest factor that all sizes are multiplied with.
        high: the largest.
        ends: the share of steps at the smallest factor, and again at the largest; the others are drawn evenly between.
        distillation: weight of the divergence from the checkpoint's answers, against that of the labels.
        reconstruction: weight of the squared distance to the checkpoint's weights, in their own deviation.
        noise: positions are moved by up to half the distance to the next unit.
        scatter: the share of steps in which only the first half of the smallest size stands for its own units and all
            others for any that are left, so that networks below the smallest trained size hold too.
        average: decay of the exponential average of the function's parameters, which is what is kept.
        flip: half of the batches show their images mirrored.
        autocast: layers compute in bfloat16.
    """

    loop: LoopConfig
    batch: int = 64
    low: float = 0.5
    high: float = 1.0
    ends: float = 0.2
    distillation: float = 0.0
    reconstruction: float = 0.0
    noise: bool = True
    scatter: float = 0.0
    average: float = 0.99
    flip: bool = False
    autocast: bool = False

    def draw(self) -> float:
        """A factor, by torch's global generator."""
        where = torch.rand(2)
        if where[0] < 2 * self.ends:
            return self.high if where[0] < self.ends else self.low
        return self.low + (self.high - self.low) * where[1].item()


def fit_function(
    function: ImplicitWeights,
    network: Network,
    sizes: Callable[[float], Sizes],
    data: tuple[Tensor, Tensor],
    config: NeuMetaTraining,
    *,
    seed: int = 0,
    identity: Mapping[str, Any] | None = None,
    state: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Trains the function in place; it ends as the average over its steps.

    Args:
        network: gives the module of a size.
        sizes: the sizes at a factor.
        data: images `[n, …]` and labels int64 `[n]`.
        identity: what else makes this training what it is, as JSON values.
        state: a file that a killed training goes on from.

    Raises:
        WeightgenError: if the loss is no longer finite; `state` then holds the last saved good state.
    """
    torch.manual_seed(seed)
    images, labels = data
    both = _Averaged(function, config.average)
    network = _cached(network)
    core = sizes(config.low / 2)
    teacher = {name: tensor.detach().clone() for name, tensor in function().items()} if config.distillation else None
    origin = {name: grid.detach().clone() for name, grid in function.grid.items()} if config.reconstruction else {}

    def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
        if step:
            both.update(step)
        size = sizes(config.draw())
        index = torch.randint(len(labels), (config.batch,))
        shown, wanted = images[index], labels[index]
        if config.flip and torch.rand(()) < 0.5:
            shown = shown.flip(-1)
        noise = torch.Generator().manual_seed(int(torch.randint(2**31, ()))) if config.noise else None
        selection = None
        if config.scatter and torch.rand(()) < config.scatter:
            selection = function.scattered(size, core, numpy.random.RandomState(int(torch.randint(2**31, ()))))
        logits = _answers(network(size), function(size, noise, selection), shown, config.autocast)
        value = functional.cross_entropy(logits, wanted)
        right = (logits.argmax(-1) == wanted).float().mean().item()
        figures = {"loss": value.item(), "accuracy": right}
        if teacher is not None:
            with torch.no_grad():
                told = _answers(network(function.full), teacher, shown, config.autocast, statistics=True)
            divergence = functional.kl_div(
                logits.log_softmax(-1), told.log_softmax(-1), reduction="batchmean", log_target=True
            )
            value = (1 - config.distillation) * value + config.distillation * divergence
        if origin:
            value = value + config.reconstruction * sum(
                ((grid - origin[name]) / origin[name].std().clamp_min(1e-6)).square().mean()
                for name, grid in function.grid.items()
            )
        return value, figures

    told = {"training": asdict(config), "seed": seed, **(identity or {})}
    train(both, loss, config.loop, identity=told, state=state, progress=progress, label="neumeta")
    both.update(config.loop.steps)
    function.load_state_dict(both.average.state_dict())
    function.eval()


@torch.no_grad()
def measure_statistics(
    function: ImplicitWeights, network: Network, sizes: Sequence[Sizes], images: Tensor
) -> Tensor | None:
    """Running statistics of all norms for a row of sizes; None if the network keeps none.

    Args:
        sizes: from small to large, the last at least the full ones.
        images: `[n, …]`, on which they are measured.

    Returns:
        `[sizes, values]`: the statistics of all norms one after the other, a value for each unit of the full network. A
        unit that is not there at a size has the value of the next size that has it.
    """
    names = statistic_names(function)
    if not names:
        return None
    rows = []
    for size in sizes:
        module = network(size)
        module.load_state_dict(function(size))
        recalibrate(module, images)
        row, gathers = [], function.gathers(size)
        for name in names:
            whole = torch.full(function.graph.shapes[name], torch.nan)
            index = torch.from_numpy(gathers[name].indices(0)) if name in gathers else torch.arange(len(whole))
            whole[index] = module.get_buffer(name)
            row.append(whole)
        rows.append(torch.cat(row))
    for place in reversed(range(len(rows) - 1)):
        rows[place] = torch.where(rows[place].isnan(), rows[place + 1], rows[place])
    return torch.stack(rows)


def statistic_names(function: ImplicitWeights) -> list[str]:
    """Names of the running statistics, in order."""
    return [name for name in function.graph.shapes if name.endswith(STATISTICS)]


class _Averaged(nn.Module):
    """A function and the exponential average of its parameters, saved and restored together."""

    def __init__(self, function: ImplicitWeights, decay: float) -> None:
        super().__init__()
        self.function, self.decay = function, decay
        self.average = copy.deepcopy(function).requires_grad_(False)

    @torch.no_grad()
    def update(self, step: int) -> None:
        # Early on the average is short, so that it does not hold on to the start.
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        for kept, new in zip(self.average.parameters(), self.function.parameters(), strict=True):
            kept.lerp_(new, weight)


def _answers(
    module: nn.Module, tensors: Mapping[str, Tensor], images: Tensor, autocast: bool, statistics: bool = False
) -> Tensor:
    """Logits; norms see the batch, or with `statistics` use their running ones."""
    module.train(not statistics)
    if not statistics:
        # They are of no use here, and must not be changed.
        tensors = {name: tensor.clone() if name.endswith(STATISTICS) else tensor for name, tensor in tensors.items()}
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        return functional_call(module, dict(tensors), (images,)).float()


def _cached(network: Network) -> Network:
    made: dict[Sizes, nn.Module] = {}

    def give(sizes: Sizes) -> nn.Module:
        if sizes not in made:
            made[sizes] = network(sizes)
        return made[sizes]

    return give
