"""Units: which nodes move as one, and which units may change places.

To move the nodes of some families is to move all that belongs to them, and to leave everything else where it is. What
moves falls into connected parts, the units. Two units may change places if they are alike in all that was said of their
nodes: marks, unions, attachments among themselves and to the same owners outside. That is told by colour refinement: a
node's colour is hashed together with those of its neighbours until no more are told apart. Within a unit no two nodes
may have one colour, so that it is known which node takes the place of which.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from weightgen.structure.axes import AxisGraph, AxisGroup, Member
from weightgen.structure.constraints import FREE, Array, Constraints, Edges, mix, paired
from weightgen.structure.owners import add_implied

ALIKE_NO_OTHER = "no two of its indices play the same part"


@dataclass(frozen=True)
class Placement:
    """Where nodes lie in the state dict.

    Args:
        names: of the tensor; several for a tied one.
        axis: its axis.
        ids: int64 `[indices]`, the node of each index.
        within: as in `Member`.
    """

    names: tuple[str, ...]
    axis: int
    ids: Array
    within: tuple[int, int, int] | None = None


def axis_graph(
    constraints: Constraints, placements: Sequence[Placement], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[AxisGraph, list[Array]]:
    """The axis groups that the constraints allow, and of each the nodes that move, in the state dict or not.

    Args:
        placements: where the nodes of the state dict lie; a node lies in one place.
        shapes: name → shape of every tensor of the state dict.
    """
    order = {name: place for place, name in enumerate(shapes)}
    placements = sorted(placements, key=lambda at: (order[at.names[0]], at.axis, at.within or ()))
    add_implied(constraints)
    finder = _Finder(constraints, placements)
    found: dict[tuple[Member, ...], AxisGroup] = {}
    nodes: dict[tuple[Member, ...], Array] = {}
    for moving in finder.choices():
        kinds: dict[tuple[object, ...], int] = {}
        groups = list(finder.groups(moving))
        counts = defaultdict(int)
        for group, _ in groups:
            counts[_kind(group)] += 1
        for group, moved in groups:
            kind = _kind(group)
            kin = kinds.setdefault(kind, len(found)) if counts[kind] > 1 else None
            found.setdefault(group.members, AxisGroup(group.size, group.members, kin))
            nodes.setdefault(group.members, moved)
    groups = sorted(found.values(), key=lambda group: _position(group, order))
    numbers: dict[int, int] = {}
    groups = [
        AxisGroup(group.size, group.members, None if group.kin is None else numbers.setdefault(group.kin, len(numbers)))
        for group in groups
    ]
    moved = {(member.tensor, member.axis) for group in groups for member in group.members}
    frozen = {key: reason for key, reason in finder.reasons(shapes).items() if key not in moved}
    return AxisGraph(tuple(groups), frozen, dict(shapes)), [nodes[group.members] for group in groups]


class _Finder:
    """Finds the groups of one set of moving families after the other."""

    def __init__(self, constraints: Constraints, placements: Sequence[Placement]) -> None:
        count = constraints.nodes
        self.placements = placements
        self.place, self.position = numpy.full(count, -1), numpy.zeros(count, dtype=numpy.int64)
        for number, placement in enumerate(placements):
            self.place[placement.ids] = number
            self.position[placement.ids] = numpy.arange(len(placement.ids))
        self.colours, self.fixed, self.texts = constraints.colours(), constraints.fixed(), constraints.reasons
        self.unions, self.attachments = constraints.unions(), constraints.attachments()
        families = constraints.families
        total = int(families[-1]) + 1 if count else 0
        # Families with a union between them always move together.
        self.cluster = _components(total, families[self.unions.first], families[self.unions.second])
        self.cluster_of = self.cluster[families]
        self.nodes = _by(self.cluster_of, numpy.arange(count))
        self.unions_of = _by(self.cluster_of[self.unions.first], numpy.arange(len(self.unions.first)))
        self.attachments_of = _by(self.cluster_of[self.attachments.first], numpy.arange(len(self.attachments.first)))
        pairs = numpy.stack([self.cluster_of[self.attachments.first], self.cluster_of[self.attachments.second]])
        self.belonging: dict[int, set[int]] = defaultdict(set)
        self.owning: dict[int, set[int]] = defaultdict(set)
        for inner, owner in numpy.unique(pairs, axis=1).T.tolist():
            self.belonging[owner].add(inner)
            self.owning[inner].add(owner)

    def choices(self) -> Iterator[tuple[int, ...]]:
        """Sets of clusters to move: each by itself, and those that own the same nodes together."""
        for cluster in sorted(self.nodes):
            yield (cluster,)
        ends = [(min(owners), owner) for owners in self.owning.values() for owner in owners]
        first, second = numpy.array(ends, dtype=numpy.int64).reshape(-1, 2).T
        total = max(self.nodes, default=-1) + 1
        together = _components(total, first, second)
        for clusters in _by(together, numpy.arange(total)).values():
            if len(clusters) > 1:
                yield tuple(clusters.tolist())

    def groups(self, moving: tuple[int, ...]) -> Iterator[tuple[AxisGroup, Array]]:
        """The groups of units when the nodes of these clusters move, each with the nodes that move with it."""
        clusters, waiting = set(moving), list(moving)
        while waiting:
            for inner in self.belonging.get(waiting.pop(), ()):
                if inner not in clusters:
                    clusters.add(inner)
                    waiting.append(inner)
        nodes = numpy.concatenate([self.nodes[cluster] for cluster in sorted(clusters)])
        if not ((self.place[nodes] >= 0) & (self.fixed[nodes] == FREE)).any():
            return
        unit, colours, several = self._units(nodes, clusters)
        own = numpy.isin(self.cluster_of[nodes], moving)
        eligible = numpy.zeros(unit.max() + 1, dtype=bool)
        eligible[unit[own]] = True
        eligible[several] = False
        signature = numpy.zeros(len(eligible), dtype=numpy.uint64)
        numpy.add.at(signature, unit, mix(colours))
        all_nodes, all_units = nodes, unit
        placed = self.place[nodes] >= 0
        place, position = self.place[nodes[placed]], self.position[nodes[placed]]
        unit, colours = unit[placed], colours[placed]
        first = numpy.full(len(eligible), numpy.iinfo(numpy.int64).max)
        numpy.minimum.at(first, unit, (place.astype(numpy.int64) << 40) + position)
        eligible[first == numpy.iinfo(numpy.int64).max] = False
        units = numpy.flatnonzero(eligible)
        _, kind, counts = numpy.unique(signature[units], return_inverse=True, return_counts=True)
        kinds = numpy.full(len(eligible), -1)
        kinds[units] = numpy.where(counts[kind] > 1, kind, -1)
        chosen = kinds[unit] >= 0
        order = numpy.lexsort((colours[chosen], first[unit[chosen]], place[chosen], kinds[unit[chosen]]))
        rows = numpy.stack([kinds[unit], place, position, unit])[:, chosen][:, order]  # [4, placed nodes]
        colours = colours[chosen][order]
        for part in _runs(rows[0]):
            members = self._members(rows[1:, part], colours[part])
            if members:
                kind = rows[0, part.start]
                yield AxisGroup(len(numpy.unique(rows[3, part])), members), all_nodes[kinds[all_units] == kind]

    def _members(self, rows: Array, colours: Array) -> tuple[Member, ...]:
        """The members of one group, none if they cannot be said.

        Args:
            rows: `[3, nodes]`, placement, index and unit of each node, sorted by placement, unit and colour.
            colours: uint64 `[nodes]`; nodes of two units correspond if they have the same.
        """
        size = len(numpy.unique(rows[2]))
        members: list[Member] = []
        carried: dict[tuple[tuple[str, ...], int], Array] = {}
        for run in _runs(rows[0]):
            placement = self.placements[rows[0, run.start]]
            indices, units = rows[1, run], rows[2, run]
            if len(numpy.unique(units)) == size:
                table = indices.reshape(size, -1)
                table = table[:, numpy.argsort(table[0])]
                members.extend(Member.of(name, placement.axis, table, placement.within) for name in placement.names)
                continue
            # A part of a tensor that one unit has for itself moves as a whole, if its indices are in the same order.
            own = colours[run][numpy.argsort(indices)]
            expected = carried.setdefault((placement.names, placement.axis), own)
            if placement.within is None or len(numpy.unique(units)) > 1 or not numpy.array_equal(own, expected):
                return ()
        return tuple(members)

    def reasons(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[tuple[str, int], str]:
        """For every axis of two indices or more the likeliest reason why it could not move."""
        unit = _components(len(self.fixed), self.unions.first, self.unions.second)
        shared = numpy.zeros(len(self.fixed), dtype=numpy.int64)
        numpy.maximum.at(shared, unit, self.fixed)
        # An owner is held by what belongs to it, if nothing was said of itself.
        inner, owner = unit[self.attachments.first], unit[self.attachments.second]
        held = shared[owner] == FREE
        numpy.maximum.at(shared, owner[held], shared[inner[held]])
        found = {
            (name, axis): "not part of the traced graph"
            for name, shape in shapes.items()
            for axis, size in enumerate(shape)
            if size > 1
        }
        for placement in self.placements:
            own = self.fixed[placement.ids]
            numbers = numpy.where(own == FREE, shared[unit[placement.ids]], own)
            numbers = numbers[numbers != FREE]
            text = self.texts[numpy.bincount(numbers).argmax()] if len(numbers) else ALIKE_NO_OTHER
            for name in placement.names:
                found[name, placement.axis] = text
        return found

    def _units(self, nodes: Array, clusters: set[int]) -> tuple[Array, Array, Array]:
        """For each node its unit and its colour, and the units in which two nodes have one colour."""
        local = numpy.full(len(self.fixed), -1)
        local[nodes] = numpy.arange(len(nodes))
        unions = _selected(self.unions, self.unions_of, clusters)
        attached = _selected(self.attachments, self.attachments_of, clusters)
        inside = local[attached.second] >= 0
        first = numpy.concatenate([unions.first, attached.first[inside]])
        second = numpy.concatenate([unions.second, attached.second[inside]])
        labels = numpy.concatenate([paired(edges.event, edges.place) for edges in (unions, _at(attached, inside))])
        first, second = local[first], local[second]
        colours = self.colours[nodes]
        # Owners that stay where they are tell what belongs to them from all else.
        outside = paired(attached.event[~inside], attached.second[~inside])
        numpy.add.at(colours, local[attached.first[~inside]], outside)
        count = 0
        while True:
            found = len(numpy.unique(colours))
            if found == count:
                break
            count, before = found, colours
            colours = mix(before)
            numpy.add.at(colours, first, paired(before[second], labels))
            numpy.add.at(colours, second, paired(labels, before[first]))
        unit = _components(len(nodes), first, second)
        order = numpy.lexsort((colours, unit))
        twice = (numpy.diff(unit[order]) == 0) & (numpy.diff(colours[order]) == 0)
        return unit, colours, unit[order][1:][twice]


def _kind(group: AxisGroup) -> tuple[object, ...]:
    """What groups of one kind have in common: size, tensors and axes."""
    return group.size, *((member.tensor, member.axis, member.block) for member in group.members)


def _position(group: AxisGroup, order: Mapping[str, int]) -> tuple[int, ...]:
    member = group.members[0]
    return order[member.tensor], member.axis, -group.size, int(member.indices(group.size)[0, 0])


def _components(count: int, first: Array, second: Array) -> Array:
    """int64 `[count]`: the number of the connected part that each of `count` things is in."""
    edges = coo_array((numpy.ones(len(first), dtype=bool), (first, second)), shape=(count, count))
    return connected_components(edges, directed=False)[1]


def _by(keys: Array, values: Array) -> dict[int, Array]:
    """Values by their key, in order."""
    order = numpy.argsort(keys, kind="stable")
    return {int(keys[order[run]][0]): values[order[run]] for run in _runs(keys[order])}


def _runs(values: Array) -> Iterator[slice]:
    """Where equal neighbours stand."""
    ends = numpy.flatnonzero(numpy.diff(values)) + 1
    starts = [0, *ends.tolist(), len(values)] if len(values) else []
    return (slice(start, stop) for start, stop in itertools.pairwise(starts))


def _selected(edges: Edges, places: Mapping[int, Array], clusters: set[int]) -> Edges:
    chosen = [places[cluster] for cluster in sorted(clusters) if cluster in places]
    return _at(edges, numpy.concatenate(chosen) if chosen else numpy.zeros(0, dtype=numpy.int64))


def _at(edges: Edges, index: Array) -> Edges:
    return Edges(edges.first[index], edges.second[index], edges.event[index], edges.place[index])
