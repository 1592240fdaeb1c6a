"""Labels: which nodes lie along the axes of one tensor of the traced network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy

Array = numpy.ndarray


@dataclass(frozen=True, eq=False)
class Space:
    """Nodes along one axis, or along several axes together.

    A linear layer's outputs have a space on their last axis. Viewed as heads, they have one space on two axes: each
    pair of head and place in it is a node.

    Args:
        axes: the axes in increasing order, none of size 1.
        ids: int64, a dimension for each of the axes; nodes, or constants where negative; no node twice.
    """

    axes: tuple[int, ...]
    ids: Array

    def moved(self, places: Mapping[int, int]) -> "Space":
        """The same nodes on other axes; `places` says for each axis which it becomes."""
        axes = [places[axis] for axis in self.axes]
        order = sorted(range(len(axes)), key=axes.__getitem__)
        return Space(tuple(axes[position] for position in order), self.ids.transpose(order))


@dataclass(frozen=True, eq=False)
class Labels:
    """What is known of the axes of one tensor.

    An axis with neither nodes nor a reason holds the same values at every index, such as one that was expanded.

    Args:
        shape: the tensor's shape.
        spaces: nodes; two spaces may share an axis, then they agree on it.
        fixed: axis → why its indices cannot leave their places. Axes of size 1 have none.
    """

    shape: tuple[int, ...]
    spaces: tuple[Space, ...] = ()
    fixed: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def all_fixed(cls, shape: Sequence[int], reason: str) -> "Labels":
        """A tensor none of whose axes may be permuted."""
        return cls(tuple(shape), (), {axis: reason for axis, size in enumerate(shape) if size != 1})

    def axis(self, axis: int) -> int:
        """The axis as a number ≥ 0."""
        return axis % max(len(self.shape), 1)

    def at(self, axis: int) -> list[Space]:
        """The spaces that an axis is part of."""
        return [space for space in self.spaces if axis in space.axes]

    def moved(self, places: Mapping[int, int], shape: Sequence[int]) -> "Labels":
        """The same labels in a tensor of another shape; `places` says where each axis goes, those of size 1 apart."""
        return Labels(
            tuple(shape),
            tuple(space.moved(places) for space in self.spaces),
            {places[axis]: reason for axis, reason in self.fixed.items()},
        )


def labels_among(arguments: Mapping[str, Any]) -> list[Labels]:
    """The labels of all tensors among the arguments of a call, lists included."""
    found: list[Labels] = []
    for value in arguments.values():
        items = value if isinstance(value, (list, tuple)) else [value]
        found.extend(item for item in items if isinstance(item, Labels))
    return found
