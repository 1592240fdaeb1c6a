"""Resizing: fewer, more or other units of axis groups, as one exact gather for each tensor.

A *selection* says of a group's new units which old unit each one is: a part of them to shrink, some twice to grow. The
order is free, since units of a group can change places. Where a group's units lie in several places of an axis (the
zeros on both sides of a padded shortcut, parts of a concatenated axis), each place keeps its share of the units: of `n`
old and `m` new units the border before old unit `i` comes before new unit `⌊i · m / n⌋`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from weightgen.errors import ArchitectureError
from weightgen.structure.axes import AxisGraph, AxisGroup

Array = numpy.ndarray

Selections = Mapping[int, Tensor | Array | Sequence[int]]
"""Number of the group in `AxisGraph.groups` → int64 `[new size]`, the old unit of each new one."""


@dataclass(frozen=True)
class Gather:
    """Where the values of a resized tensor come from.

    Args:
        shape: of the resized tensor.
        axes: axis → int64 `[shape[axis]]`, the old index of each new one; other axes stay as they are.
        parts: (axis, other) → int64 `[shape[other], shape[axis]]`: for each new index of the other axis the old indices
            along `axis`, where these differ from part to part as they do in a grouped convolution.
    """

    shape: tuple[int, ...]
    axes: Mapping[int, Array]
    parts: Mapping[tuple[int, int], Array]

    def indices(self, axis: int) -> Array:
        """The old index of each new one along an axis; of an axis with parts those of the first part."""
        if axis in self.axes:
            return self.axes[axis]
        for (inner, _), table in self.parts.items():
            if inner == axis:
                return table[0]
        return numpy.arange(self.shape[axis])

    def __call__(self, tensor: Tensor) -> Tensor:
        """The resized tensor; `tensor` has the old shape, and may have the meta device."""
        for axis, index in self.axes.items():
            tensor = tensor.index_select(axis, torch.from_numpy(index).to(tensor.device))
        for (axis, other), table in self.parts.items():
            places = torch.from_numpy(table).to(tensor.device)  # [other, axis]
            moved = tensor.movedim((other, axis), (0, 1))
            rows = torch.arange(len(moved), device=tensor.device)[:, None]
            tensor = moved[rows, places].movedim((0, 1), (other, axis))
        return tensor.contiguous()


def gathers(graph: AxisGraph, selections: Selections) -> dict[str, Gather]:
    """For every tensor that the selections change, where its new values come from.

    Args:
        graph: the axis groups of the network.
        selections: of those groups that change; kin must get as many units each.

    Raises:
        ArchitectureError: if a group is left empty, a unit does not exist, or kin are resized differently.
    """
    chosen = _checked(graph, selections)
    axes: dict[tuple[str, int, tuple[int, int, int] | None], _Axis] = {}
    # What lies within the units of another group has fewer indices, and is resized first.
    for number in sorted(chosen, key=lambda one: _largest_block(graph.groups[one])):
        group = graph.groups[number]
        cuts: set[int] = set()
        found = []
        for member in group.members:
            key = member.tensor, member.axis, member.within
            axis = axes.setdefault(key, _Axis(numpy.arange(graph.shapes[member.tensor][member.axis])))
            table = axis.placed(member.indices(group.size))
            found.append((axis, table))
            cuts.update(axis.cuts(table))
        for axis, table in found:
            axis.resize(table, chosen[number], sorted(cuts))
    return {
        name: _gather(shape, {key[1:]: axis.source for key, axis in axes.items() if key[0] == name})
        for name, shape in graph.shapes.items()
        if name in {key[0] for key in axes}
    }


def resized(tensors: Mapping[str, Tensor], graph: AxisGraph, selections: Selections) -> dict[str, Tensor]:
    """Tensors with the selected units of the network's groups; what no group touches is shared.

    Raises:
        ArchitectureError: as `gathers`.
    """
    found = gathers(graph, selections)
    return {name: found[name](tensor) if name in found else tensor for name, tensor in tensors.items()}


def resized_shapes(graph: AxisGraph, sizes: Mapping[int, int]) -> dict[str, tuple[int, ...]]:
    """Name → shape of every tensor of the network with other sizes of its groups.

    Args:
        sizes: number of the group → its new size, of the groups that change.

    Raises:
        ArchitectureError: as `gathers`.
    """
    found = gathers(graph, even_selections(graph, sizes))
    return {name: found[name].shape if name in found else tuple(shape) for name, shape in graph.shapes.items()}


def even_selections(graph: AxisGraph, sizes: Mapping[int, int]) -> dict[int, Array]:
    """Evenly spaced units of each group, each one as often as another as nearly as can be when it grows.

    Weight selection, https://arxiv.org/abs/2311.18823, is this for groups that shrink.
    """
    return {
        number: numpy.arange(max(size, 0)) * graph.groups[number].size // max(size, 1) for number, size in sizes.items()
    }


def kin_of(graph: AxisGraph) -> list[tuple[int, ...]]:
    """The numbers of the groups, those together that must be resized alike; in the order of their first."""
    alike: dict[object, list[int]] = {}
    for number, group in enumerate(graph.groups):
        alike.setdefault(("alone", number) if group.kin is None else group.kin, []).append(number)
    return [tuple(numbers) for numbers in alike.values()]


def outermost(graph: AxisGraph) -> list[tuple[int, ...]]:
    """Those of `kin_of` whose units lie within the units of no other group: heads, but not the places within them."""
    spans: dict[tuple[str, int], list[tuple[int, int, frozenset[int]]]] = {}
    for number, group in enumerate(graph.groups):
        for member in group.members:
            covered = frozenset(member.indices(group.size).ravel().tolist())
            spans.setdefault((member.tensor, member.axis), []).append((number, member.block, covered))
    inner = {
        one
        for along in spans.values()
        for one, block, covered in along
        for _, larger, around in along
        if larger > block and covered <= around
    }
    return [numbers for numbers in kin_of(graph) if not inner.intersection(numbers)]


class _Axis:
    """One axis of a tensor, or of a part of it, while groups along it are resized one after the other.

    Args:
        source: int64 `[size]`, the index in the old tensor from which each value comes.
    """

    def __init__(self, source: Array) -> None:
        self.source = source

    def placed(self, table: Array) -> Array:
        """Where the indices of units `[units, old indices]` are now, `[units, indices]`."""
        order = numpy.argsort(self.source, kind="stable")
        ordered = self.source[order]
        first, last = (numpy.searchsorted(ordered, table.ravel(), side) for side in ("left", "right"))
        counts = last - first
        starts = numpy.repeat(first - numpy.concatenate([[0], numpy.cumsum(counts)[:-1]]), counts)
        return order[starts + numpy.arange(counts.sum())].reshape(len(table), -1)

    def cuts(self, table: Array) -> Iterable[int]:
        """The units before which the axis goes on with something else than the unit before."""
        unit, pieces = self._pieces(table)
        for start, _ in pieces:
            yield int(unit[start])
        yield from (int(unit[stop - 1]) + 1 for _, stop in pieces)

    def resize(self, table: Array, selection: Array, cuts: Sequence[int]) -> None:
        """Puts the selected units in the place of those of `table` `[units, indices]`."""
        units = len(table)
        unit, pieces = self._pieces(table)
        column = numpy.full(len(unit), -1)
        column[table] = numpy.arange(table.shape[1])
        border = {cut: cut * len(selection) // units for cut in cuts}
        parts, done = [], 0
        for start, stop in pieces:
            parts.append(numpy.arange(done, start))
            first, last = int(unit[start]), int(unit[stop - 1]) + 1
            columns = column[start:stop][unit[start:stop] == first]
            new = selection[border[first] : border[last]]
            parts.append(table[new][:, columns].ravel())
            done = stop
        parts.append(numpy.arange(done, len(unit)))
        self.source = self.source[numpy.concatenate(parts)]

    def _pieces(self, table: Array) -> tuple[Array, list[tuple[int, int]]]:
        """The unit of every index, −1 for none, and the stretches in which units follow one another."""
        unit = numpy.full(len(self.source), -1)
        unit[table] = numpy.arange(len(table))[:, None]
        step = numpy.diff(unit, prepend=-2)
        begins = numpy.flatnonzero((step != 0) & ((step != 1) | (numpy.roll(unit, 1) < 0)))
        ends = [*begins[1:].tolist(), len(unit)]
        return unit, [(start, stop) for start, stop in zip(begins.tolist(), ends, strict=True) if unit[start] >= 0]


def _gather(shape: Sequence[int], sources: Mapping[tuple[int, tuple[int, int, int] | None], Array]) -> Gather:
    """The gather of a tensor from those of its axes, and of the parts of its axes."""
    axes = {axis: source for (axis, within), source in sources.items() if within is None}
    parts: dict[tuple[int, int], Array] = {}
    new = [len(axes[axis]) if axis in axes else size for axis, size in enumerate(shape)]
    for axis, other in sorted({(axis, within[0]) for axis, within in sources if within is not None}):
        inside = {within[1:]: source for (one, within), source in sources.items() if one == axis and within is not None}
        width = len(next(iter(inside.values())))
        rows = numpy.tile(numpy.arange(width) * shape[axis] // width, (shape[other], 1))
        for (start, stop), source in inside.items():
            rows[start:stop] = source
        parts[axis, other] = rows[axes[other]] if other in axes else rows
        new[axis] = width
    return Gather(tuple(new), axes, parts)


def _checked(graph: AxisGraph, selections: Selections) -> dict[int, Array]:
    """The selections as arrays."""
    chosen = {}
    for number, selection in selections.items():
        units = numpy.asarray(selection, dtype=numpy.int64)
        group = graph.groups[number]
        where = f"the {group.size} units of {group.members[0].tensor}[{group.members[0].axis}]"
        if not len(units):
            raise ArchitectureError("a size must be at least 1", where=where, got=0, expected=f"1 to {group.size}")
        if units.min() < 0 or units.max() >= group.size:
            raise ArchitectureError("a unit that is not there", where=where, got=int(units.max()))
        chosen[number] = units
    for numbers in kin_of(graph):
        found = {len(chosen[one]) if one in chosen else graph.groups[one].size for one in numbers}
        if len(found) > 1:
            first = graph.groups[numbers[0]].members[0]
            raise ArchitectureError(
                "groups of one kind need one size", where=f"{len(numbers)} groups along {first.tensor}[{first.axis}]",
                got=sorted(found), remedy="resize all of them alike",
            )  # fmt: skip
    return chosen


def _largest_block(group: AxisGroup) -> int:
    return max(member.block for member in group.members)
