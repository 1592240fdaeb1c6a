"""Axis groups: the axes of several tensors that must be permuted or resized together."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from weightgen.errors import ArchitectureError

if TYPE_CHECKING:
    import numpy


@dataclass(frozen=True)
class IndexTable:
    """Which indices of an axis each unit owns, where it is not a block of neighbouring ones.

    Args:
        units: for each unit its indices, in the order in which those of all units correspond.
    """

    units: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Member:
    """One axis of one tensor, or a part of it, along which the units of a group lie.

    Args:
        tensor: its name in the state dict.
        axis: the axis.
        block: unit `u` owns the neighbouring indices `u · block … (u + 1) · block − 1`, as of a flattened feature map.
        table: the indices of each unit where they lie otherwise (in a concatenated axis, or in several pieces such as
            the gates of a recurrent layer); `block` then says how many a unit has.
        within: `(axis, start, stop)` if the units lie along the axis only in this range of another axis, as the inputs
            of one group of a grouped convolution do.
    """

    tensor: str
    axis: int
    block: int = 1
    table: IndexTable | None = None
    within: tuple[int, int, int] | None = None

    @classmethod
    def of(
        cls, tensor: str, axis: int, indices: "numpy.ndarray", within: tuple[int, int, int] | None = None
    ) -> "Member":
        """A member whose units own the given indices `[units, indices of a unit]`."""
        import numpy

        block = indices.shape[1]
        plain = numpy.array_equal(indices.ravel(), numpy.arange(indices.size))
        table = None if plain else IndexTable(tuple(map(tuple, indices.tolist())))
        return cls(tensor, axis, block, table, within)

    def indices(self, size: int) -> "numpy.ndarray":
        """int64 `[size, block]`: the indices that each of the group's `size` units owns."""
        import numpy

        if self.table is not None:
            return numpy.array(self.table.units, dtype=numpy.int64)
        return numpy.arange(size * self.block).reshape(size, self.block)


@dataclass(frozen=True)
class AxisGroup:
    """Hidden units that can change places: `size` of them, with every axis along which they lie.

    Args:
        size: how many units there are.
        members: where they lie.
        kin: a number that groups share which are of one kind and must be resized alike, such as the inner axes of all
            heads of a layer; None for a group that stands alone.
        scales: what else can be done to a unit without changing the function, each a power for every member: the
            unit's values in a member may be multiplied by any s > 0 to that power, as (1, 1, −1) says for the rows, the
            bias and the columns around a ReLU.
        signs: the same for s = −1: the members whose values may change sign together have a 1.
    """

    size: int
    members: tuple[Member, ...]
    kin: int | None = field(default=None, compare=False)
    scales: tuple[tuple[int, ...], ...] = field(default=(), compare=False)
    signs: tuple[tuple[int, ...], ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class AxisGraph:
    """All axis groups of a network.

    Groups may lie within others: the heads of an attention layer are one, the places within each head more. Any
    permutation of any group leaves the network's function unchanged, in any order one after the other.

    Args:
        groups: in the order of the tensors.
        frozen: (tensor, axis) → why no group moves it, for every axis with two indices or more.
        shapes: name → shape of every tensor.
    """

    groups: tuple[AxisGroup, ...]
    frozen: Mapping[tuple[str, int], str]
    shapes: Mapping[str, tuple[int, ...]]

    def to_json(self) -> dict[str, Any]:
        """All that resizing needs, groups and shapes, as JSON values; scales, signs and reasons are left out."""
        groups = [
            {
                "size": group.size,
                "kin": group.kin,
                "members": [
                    [one.tensor, one.axis, one.block, one.table and list(map(list, one.table.units)), one.within]
                    for one in group.members
                ],
            }
            for group in self.groups
        ]
        return {"groups": groups, "shapes": [[name, list(shape)] for name, shape in self.shapes.items()]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "AxisGraph":
        """The inverse of `to_json`; raises KeyError, TypeError or ValueError for other values."""
        groups = tuple(
            AxisGroup(
                group["size"],
                tuple(
                    Member(
                        tensor, axis, block, table and IndexTable(tuple(map(tuple, table))), within and tuple(within)
                    )
                    for tensor, axis, block, table, within in group["members"]
                ),
                group["kin"],
            )
            for group in value["groups"]
        )
        return cls(groups, {}, {name: tuple(shape) for name, shape in value["shapes"]})


SCALE_FREE = frozenset({"relu", "leaky_relu"})
"""Activations with f(s·x) = s·f(x) for s > 0."""
ODD = frozenset({"tanh"})
"""Activations with f(−x) = −f(x)."""


def axis_groups(shapes: Mapping[str, tuple[int, ...]], activation: str = "") -> list[AxisGroup]:
    """The hidden groups of a plain stack of linear and convolutional layers, from first to last.

    The inputs of the first layer and the outputs of the last are fixed and belong to no group. These are the groups
    that tracing finds, without the seconds that it takes to load what traces.

    Args:
        shapes: name → shape of every tensor, `LAYER.weight` and `LAYER.bias` in the order of the layers.
        activation: between the layers; decides on scales and signs, of which there are none if it is not given.

    Raises:
        ArchitectureError: if the tensors are not those of a plain stack; never a wrong group.
    """
    layers: list[tuple[str, tuple[int, ...]]] = []
    for name, shape in shapes.items():
        layer, _, kind = name.rpartition(".")
        if kind == "weight" and len(shape) >= 2:
            layers.append((layer, shape))
        elif kind != "bias" or not layers or layers[-1][0] != layer or shape != layers[-1][1][:1]:
            raise _not_a_stack(name, shape)
    groups = []
    for (layer, shape), (following, next_shape) in itertools.pairwise(layers):
        size, inputs = shape[0], next_shape[1]
        block = inputs // size
        # Only where a feature map is flattened may a unit own several inputs.
        if inputs % size or (block > 1 and not len(shape) > 2 == len(next_shape)):
            raise _not_a_stack(f"{following}.weight", next_shape)
        members = [Member(f"{layer}.weight", 0)]
        if f"{layer}.bias" in shapes:
            members.append(Member(f"{layer}.bias", 0))
        groups.append(AxisGroup(size, (*members, Member(f"{following}.weight", 1, block))))
    return [with_activation(group, activation) for group in groups]


def with_activation(group: AxisGroup, activation: str) -> AxisGroup:
    """A group of a plain stack, its outgoing weights last, with the scales and signs that its activation allows."""
    incoming = len(group.members) - 1
    scales = (((1,) * incoming + (-1,)),) if activation in SCALE_FREE else ()
    signs = ((1,) * (incoming + 1),) if activation in ODD else ()
    return replace(group, scales=scales, signs=signs)


def _not_a_stack(name: str, shape: tuple[int, ...]) -> ArchitectureError:
    return ArchitectureError(
        "only plain stacks of linear and convolutional layers have known axis groups so far",
        where=f"tensor '{name}'",
        got=f"shape {tuple(shape)}",
        remedy="use a weightgen/mlp or weightgen/cnn architecture",
    )
