"""Along: the units of one member seen in the tensors of many networks at once."""

import math

import torch
from torch import Tensor

from weightgen.structure.axes import AxisGroup, Member


class Along:
    """One member of a group with the index table by which its units are read, permuted and scaled.

    All tensors are `[networks, …]`, so that the member's axis is one further to the right.

    Args:
        member: where the units lie.
        size: how many there are.
    """

    def __init__(self, member: Member, size: int) -> None:
        self.tensor, self.within = member.tensor, member.within
        self.axis, self.block, self.size = member.axis + 1, member.block, size
        self.table = torch.from_numpy(member.indices(size))  # [units, block]
        self.plain = member.table is None

    def units(self, tensor: Tensor) -> Tensor:
        """`[networks, units, values of a unit]`."""
        part = self._part(tensor).movedim(self.axis, 1)
        if not self.plain:
            part = part.index_select(1, self.table.flatten())
        elif part.shape[1] != self.table.numel():
            part = part.narrow(1, 0, self.table.numel())
        return part.reshape(len(tensor), self.size, -1)

    def permuted(self, tensor: Tensor, order: Tensor) -> Tensor:
        """Unit `order[n, i]` moves to place i; order int64 `[networks, units]`."""
        part = self._part(tensor)
        chosen = self.table[order].flatten(1)
        if self.plain and chosen.shape[1] == part.shape[self.axis]:
            source = chosen
        else:
            source = torch.arange(part.shape[self.axis]).repeat(len(order), 1)
            source[:, self.table.flatten()] = chosen
        if len(tensor) == 1:
            moved = part.index_select(self.axis, source[0])
        else:
            # As rows of what lies behind the axis, which are copied as they are.
            before = math.prod(part.shape[1 : self.axis])
            starts = torch.arange(len(tensor) * before).view(len(tensor), before, 1) * source.shape[1]
            rows = part.reshape(-1, math.prod(part.shape[self.axis + 1 :]))
            moved = rows.index_select(0, (starts + source[:, None]).flatten()).view(part.shape)
        return self._whole(tensor, moved)

    def factors(self, tensor: Tensor, scale: Tensor) -> Tensor:
        """The factors `[networks, units]` where they apply, 1 elsewhere: of a shape that broadcasts to the tensor's."""
        part = self._part(tensor)
        length = part.shape[self.axis]
        spread = scale.repeat_interleave(self.block, dim=1)
        if not (self.plain and spread.shape[1] == length):
            source = torch.full((length,), spread.shape[1])
            source[self.table.flatten()] = torch.arange(spread.shape[1])
            spread = torch.cat([spread, spread.new_ones(len(spread), 1)], 1)[:, source]
        spread = spread.view(len(spread), *[length if axis == self.axis else 1 for axis in range(1, tensor.dim())])
        if self.within is None:
            return spread
        axis, start, stop = self.within[0] + 1, *self.within[1:]
        widths = (start, stop - start, tensor.shape[axis] - stop)
        sizes = [spread.new_ones(()).expand_as(spread), spread, spread.new_ones(()).expand_as(spread)]
        return torch.cat([one.repeat_interleave(width, axis) for one, width in zip(sizes, widths, strict=True)], axis)

    def _part(self, tensor: Tensor) -> Tensor:
        if self.within is None:
            return tensor
        axis, start, stop = self.within
        return tensor.narrow(axis + 1, start, stop - start)

    def _whole(self, tensor: Tensor, part: Tensor) -> Tensor:
        if self.within is None:
            return part
        axis, start, stop = self.within[0] + 1, *self.within[1:]
        before, after = tensor.narrow(axis, 0, start), tensor.narrow(axis, stop, tensor.shape[axis] - stop)
        return torch.cat([before, part, after], dim=axis)


def along(group: AxisGroup) -> list[Along]:
    """All members of a group."""
    return [Along(member, group.size) for member in group.members]
