"""What each unit of an axis group has in one of its members."""

import torch
from torch import Tensor

from weightgen.structure.axes import Member


def unit_values(tensor: Tensor, member: Member, size: int) -> Tensor:
    """What each unit has in one member, `[units, values]`."""
    if member.within is not None:
        axis, start, stop = member.within
        tensor = tensor.narrow(axis, start, stop - start)
    places = torch.from_numpy(member.indices(size))
    return tensor.movedim(member.axis, 0)[places].flatten(1)
