"""Nesting: which groups lie within the units of others, and which must be in order before another can be read."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from weightgen.structure.axes import AxisGroup

Family = dict[int, list[int]]
"""Unit of an outer group → the groups of one kind within it; all units have equally many."""


@dataclass(frozen=True)
class Nesting:
    """How the groups of a network lie to one another.

    Args:
        outer: for each group those within whose units it lies, as the axis of a head lies within its head.
        families: for each group, by kind, the groups within each of its units.
        direct: for each group the numbers of the members in whose axis no other group lies within its units.
        needs: for each group and member, the groups whose order decides what a unit's values are compared with.
    """

    outer: tuple[frozenset[int], ...]
    families: tuple[tuple[Family, ...], ...]
    direct: tuple[tuple[int, ...], ...]
    needs: tuple[tuple[frozenset[int], ...], ...]


def nesting(groups: Sequence[AxisGroup]) -> Nesting:
    """How the groups of a network lie to one another."""
    places: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for number, group in enumerate(groups):
        for position, member in enumerate(group.members):
            places[member.tensor].append((number, position))
    tables = [[member.indices(group.size) for member in group.members] for group in groups]
    outer: list[set[int]] = [set() for _ in groups]
    units: dict[tuple[int, int], int] = {}
    covered: set[tuple[int, int]] = set()
    needs = [[set() for _ in group.members] for group in groups]
    for found in places.values():
        for one, here in found:
            for other, there in found:
                first, second = groups[one].members[here], groups[other].members[there]
                if one == other:
                    continue
                if first.axis != second.axis:
                    needs[one][here].add(other)
                elif numpy.intersect1d(tables[one][here], tables[other][there]).size:
                    unit = _unit_around(tables[one][here], tables[other][there])
                    if unit is None:
                        needs[one][here].add(other)
                    else:
                        outer[one].add(other)
                        units[one, other] = unit
                        covered.add((other, there))
    # A group within another's unit in one tensor is read with it in all.
    families = [_families(number, groups, outer, units) for number in range(len(groups))]
    direct = tuple(
        tuple(position for position in range(len(group.members)) if (number, position) not in covered)
        for number, group in enumerate(groups)
    )
    waits = tuple(tuple(frozenset(waited - outer[number]) for waited in needs[number]) for number in range(len(groups)))
    return Nesting(tuple(map(frozenset, outer)), tuple(families), direct, waits)


def _unit_around(inner: numpy.ndarray, table: numpy.ndarray) -> int | None:
    """The unit of `table` `[units, block]` that all inner indices belong to, if it is one and larger than they are."""
    units = numpy.flatnonzero(numpy.isin(table, inner).any(1))
    if len(units) != 1 or not numpy.isin(inner, table[units[0]]).all():
        return None
    return int(units[0])


def _families(
    number: int, groups: Sequence[AxisGroup], outer: Sequence[set[int]], units: dict[tuple[int, int], int]
) -> tuple[Family, ...]:
    """The families within a group's units: kinds of which every unit has equally many."""
    kinds: dict[object, Family] = {}
    for inner, around in enumerate(outer):
        if number in around:
            group = groups[inner]
            kind = (group.size, tuple((member.tensor, member.axis, member.block) for member in group.members))
            kinds.setdefault(kind, defaultdict(list))[units[inner, number]].append(inner)
    size = groups[number].size
    return tuple(
        dict(family)
        for family in kinds.values()
        if len(family) == size and len({len(members) for members in family.values()}) == 1
    )
