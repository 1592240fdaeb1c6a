"""Permutations: the units of an axis group in another order, the network's function unchanged."""

from collections.abc import Mapping

import numpy
import torch
from torch import Tensor

from weightgen.structure.axes import AxisGroup, Member


def permuted(tensors: Mapping[str, Tensor], group: AxisGroup, order: Tensor) -> dict[str, Tensor]:
    """Tensors with the units of a group in another order; what the group does not touch is shared.

    Args:
        tensors: name → tensor, as in a state dict.
        group: the group whose units change places.
        order: int64 `[group.size]`, a permutation; unit `order[i]` moves to the place of unit `i`.
    """
    out = dict(tensors)
    for member in group.members:
        out[member.tensor] = permuted_member(out[member.tensor], member, order)
    return out


def permuted_member(tensor: Tensor, member: Member, order: Tensor) -> Tensor:
    """One tensor with the units of a member in another order; see `permuted`."""
    if member.within is not None:
        axis, start, stop = member.within
        part = permuted_member(
            tensor.narrow(axis, start, stop - start),
            Member(member.tensor, member.axis, member.block, member.table),
            order,
        )
        before, after = tensor.narrow(axis, 0, start), tensor.narrow(axis, stop, tensor.shape[axis] - stop)
        return torch.cat([before, part, after], dim=axis)
    indices = member.indices(len(order))
    source = numpy.arange(tensor.shape[member.axis])
    source[indices] = indices[order.numpy()]
    return tensor.index_select(member.axis, torch.from_numpy(source).to(tensor.device))
