"""Structured pruning: the units that matter most are kept.

How much a unit matters, from what it has in all members of its group:

- `l1` (https://arxiv.org/abs/1608.08710), `l2`: the norm of the weights that make it, of contracting layers;
- `group-norm` (https://arxiv.org/abs/2301.12900): the norm of all that it has, what reads it too;
- `taylor` (https://arxiv.org/abs/1906.10771): (Σ w · ∂L/∂w)² over the parameters that make it, summed over batches of
  training data;
- `prune`: `taylor` where there is a task, else `group-norm`.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy
import torch
from torch import Tensor, nn

from weightgen.generators.resizing.method import Method, Sizes, Source, by_selection, register
from weightgen.generators.resizing.values import unit_values
from weightgen.structure.axes import AxisGroup, Member
from weightgen.structure.reading import reads, writes
from weightgen.structure.resizing import Selections

BATCH = 64

Importance = Callable[[Source, Sizes], Mapping[int, Tensor]]
"""Gives for each group that changes how much its units matter, `[units]`."""


def most_important(importance: Importance) -> Callable[[Source, Sizes], Selections]:
    """Keeps the units that matter most, in their old order."""

    def choose(source: Source, sizes: Sizes) -> Selections:
        scores = importance(source, sizes)
        return {
            number: numpy.sort(scores[number].argsort(descending=True, stable=True)[:size].numpy())
            for number, size in sizes.items()
        }

    return choose


def _norm(power: int, all_members: bool) -> Importance:
    def importance(source: Source, sizes: Sizes) -> Mapping[int, Tensor]:
        def score(group: AxisGroup) -> Tensor:
            members = group.members if all_members else _made_by(source.module, group, norms=False) or group.members
            parts = [unit_values(source.tensors[one.tensor].float(), one, group.size) for one in members]
            return torch.stack([part.abs().pow(power).sum(1) for part in parts]).sum(0)

        return {number: score(source.graph.groups[number]) for number in sizes}

    return importance


def _made_by(module: nn.Module, group: AxisGroup, norms: bool) -> tuple[Member, ...]:
    """The members in which the weights lie that make a unit, with or without those of norms."""
    names = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    return tuple(
        member
        for member in group.members
        if member.tensor in names
        and (
            (norms and not reads(module, member.tensor, member.axis))
            or (writes(module, member.tensor, member.axis) and member.tensor.endswith("weight"))
        )
    )


def _taylor(source: Source, sizes: Sizes) -> Mapping[int, Tensor]:
    images, labels = source.batch
    groups = {number: source.graph.groups[number] for number in sizes}
    members = {number: _made_by(source.module, group, norms=True) for number, group in groups.items()}
    scores = {number: torch.zeros(group.size) for number, group in groups.items()}
    parameters = dict(source.module.named_parameters(remove_duplicate=False))
    task = source.task
    assert task is not None  # `batch` has said so
    for part, truth in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        loss = task.loss(source.module(part), truth)
        gradients = dict(
            zip(parameters, torch.autograd.grad(loss, list(parameters.values()), allow_unused=True), strict=True)
        )
        with torch.no_grad():
            for number, group in groups.items():
                products = [
                    unit_values(parameters[one.tensor] * gradient, one, group.size).sum(1)
                    for one in members[number]
                    if (gradient := gradients[one.tensor]) is not None
                ]
                scores[number] += torch.stack(products).sum(0).square() if products else 0.0
    return scores


def _prune(source: Source, sizes: Sizes) -> Mapping[int, Tensor]:
    return _taylor(source, sizes) if source.task is not None else _norm(2, True)(source, sizes)


_FORMS: dict[str, tuple[str, str, Importance]] = {
    "l1": ("units of greatest L1 norm", "https://arxiv.org/abs/1608.08710", _norm(1, False)),
    "l2": ("units of greatest L2 norm", "https://arxiv.org/abs/1608.08710", _norm(2, False)),
    "group-norm": ("units of greatest norm in their whole group", "https://arxiv.org/abs/2301.12900", _norm(2, True)),
    "taylor": ("units that the loss depends on most", "https://arxiv.org/abs/1906.10771", _taylor),
    "prune": ("taylor with a task, else group-norm", "https://arxiv.org/abs/1906.10771", _prune),
}

for _name, (_title, _address, _importance) in _FORMS.items():
    _method = Method(_title, _address, by_selection(most_important(_importance)))
    register(_name, dataclasses.replace(_method, needs_task=_name == "taylor"))
