"""Alignment: hidden units put in the order, scale and sign of a reference network, the function unchanged.

Permutations are found by weight matching, coordinate descent over axis groups (Git Re-Basin,
https://arxiv.org/abs/2209.04836); the scale of ReLU units is balanced between what comes in and what goes out; the
sign of tanh units follows the reference.
Everything is batched over networks but the assignment itself, which is scipy's.
"""

from collections.abc import Mapping, Sequence

import numpy
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from weightgen.structure.axes import AxisGroup, Member

SWEEPS = 12
"""Most sweeps over all groups in search of the order."""
BALANCING_SWEEPS = 200
"""Most sweeps over all groups in search of the scale; deep stacks need more than ten."""
SCALE_FREE = frozenset({"relu", "leaky_relu"})
"""Activations with f(s·x) = s·f(x) for s > 0."""
ODD = frozenset({"tanh"})
"""Activations with f(−x) = −f(x)."""


class Aligner:
    """Brings networks of one architecture into the order of a reference.

    Args:
        groups: the architecture's axis groups.
        activation: the name of its activation, which decides what symmetries there are beside permutation.
        reference: name → tensor of the reference network; canonicalised here. None for scale alone.
    """

    def __init__(
        self, groups: Sequence[AxisGroup], activation: str, reference: Mapping[str, Tensor] | None = None
    ) -> None:
        self.groups = list(groups)
        self.activation = activation
        self.reference = (
            None if reference is None else self.canonicalise({name: tensor[None] for name, tensor in reference.items()})
        )

    def canonicalise(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Balances the scale of each hidden unit between its incoming and outgoing weights; tensors `[networks, …]`."""
        out = {name: tensor.double() for name, tensor in tensors.items()}
        if self.activation in SCALE_FREE:
            for _ in range(BALANCING_SWEEPS):
                change = 0.0
                for group in self.groups:
                    *incoming, outgoing = group.members
                    inward = sum(_units(out[member.tensor], member).square().sum(2) for member in incoming)
                    outward = _units(out[outgoing.tensor], outgoing).square().sum(2)
                    # A unit that is dead on either side keeps its scale.
                    alive = (inward > 0) & (outward > 0)
                    scale = torch.where(alive, (outward / inward.clamp_min(1e-30)) ** 0.25, torch.ones_like(inward))
                    for member in incoming:
                        out[member.tensor] = _scaled(out[member.tensor], member, scale)
                    out[outgoing.tensor] = _scaled(out[outgoing.tensor], outgoing, 1 / scale)
                    change = max(change, (scale - 1).abs().max().item())
                if change < 1e-8:
                    break
        return {name: tensor.to(tensors[name].dtype) for name, tensor in out.items()}

    def align(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Networks `[networks, …]` in canonical scale and in the order and sign of the reference."""
        return self.match(self.canonicalise(tensors))

    def match(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As `align`, for networks that are in canonical scale already; differentiable, the order taken as given.

        The reference may be one network, or as many as there are in `tensors`, each the reference of one.
        """
        if self.reference is None:
            raise ValueError("an Aligner without a reference cannot match")
        reference, out = self.reference, dict(tensors)
        signed = self.activation in ODD
        # The first sweep looks only at what comes in, since what goes out is not in order yet.
        for sweep in range(SWEEPS):
            changed = False
            for position, group in enumerate(self.groups):
                last = position == len(self.groups) - 1
                members = group.members if sweep or last else group.members[:-1]
                with torch.no_grad():
                    similarity = sum(
                        _units(reference[member.tensor], member) @ _units(out[member.tensor], member).mT
                        for member in members
                    )
                order = _assign(similarity.abs() if signed else similarity)
                sign = similarity.gather(2, order[:, :, None]).squeeze(2).sign() if signed else None
                identity = torch.arange(group.size).expand_as(order)
                if bool((order != identity).any()) or (sign is not None and bool((sign < 0).any())):
                    changed = True
                    for member in group.members:
                        out[member.tensor] = _permuted(out[member.tensor], member, order)
                        if sign is not None:
                            out[member.tensor] = _scaled(out[member.tensor], member, torch.where(sign < 0, -1.0, 1.0))
            if not changed:
                break
        return out


def flat(tensors: Mapping[str, Tensor]) -> Tensor:
    """All values of each network in one row: `[networks, values]`."""
    return torch.cat([tensor.flatten(1) for tensor in tensors.values()], dim=1)


def aligned_distances(
    first: Mapping[str, Tensor], second: Mapping[str, Tensor], groups: Sequence[AxisGroup], activation: str
) -> Tensor:
    """L2 distance of every network of `first` to every one of `second`, with scale, permutation and sign removed.

    Each of `first` is aligned to each of `second`.

    Returns:
        float32 `[networks of first, networks of second]`.
    """
    plain = Aligner(groups, activation)
    left, right = plain.canonicalise(first), plain.canonicalise(second)
    columns = []
    for index in range(len(next(iter(right.values())))):
        aligner = Aligner(groups, activation)
        aligner.reference = {name: right[name][index : index + 1] for name in left}
        columns.append((flat(aligner.match(left)) - flat(aligner.reference)).norm(dim=1))
    return torch.stack(columns, dim=1)


def _units(tensor: Tensor, member: Member) -> Tensor:
    """`[networks, units, values of the unit]` of one member; tensor `[networks, …]`."""
    moved = tensor.movedim(member.axis + 1, 1)
    return moved.reshape(len(tensor), moved.shape[1] // member.block, -1)


def _expand(values: Tensor, member: Member) -> Tensor:
    return values.repeat_interleave(member.block, dim=1)


def _scaled(tensor: Tensor, member: Member, scale: Tensor) -> Tensor:
    """Each unit times its factor; scale `[networks, units]`."""
    shape = [len(tensor)] + [1] * (tensor.dim() - 1)
    shape[member.axis + 1] = -1
    return tensor * _expand(scale, member).to(tensor.dtype).view(shape)


def _permuted(tensor: Tensor, member: Member, order: Tensor) -> Tensor:
    """Unit `order[n, i]` moves to place i; order `[networks, units]`."""
    index = (order[:, :, None] * member.block + torch.arange(member.block)).flatten(1)
    moved = tensor.movedim(member.axis + 1, 1)
    rows = torch.arange(len(tensor))[:, None]
    return moved[rows, index].movedim(1, member.axis + 1)


def _assign(similarity: Tensor) -> Tensor:
    """The assignment of largest total similarity, one a network: int64 `[networks, units]`."""
    arrays = similarity.detach().double().cpu().numpy()
    return torch.from_numpy(
        numpy.stack([linear_sum_assignment(array, maximize=True)[1] for array in arrays]).astype(numpy.int64)
    )
