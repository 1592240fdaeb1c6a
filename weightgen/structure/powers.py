"""Powers: how the values of a traced network scale when its units do, call by call.

What is known of a value is, for each group and each space of axes along which the group's units lie in it, a sum of
unknown powers. A call of an operator gives the sums of its results from those of its arguments, and adds equations.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from weightgen.structure.constraints import Array
from weightgen.structure.labels import Labels, labels_among

Place = tuple[int, tuple[int, ...]]
"""A group's number, and the axes of a tensor along which its units lie."""
Sum = dict[int, int]
"""Unknown → how often it is in the sum."""
Parts = Sequence[tuple[Labels, Mapping[int, int]]]
"""Operands with the place of each of their axes in a common index space."""


@dataclass(frozen=True)
class Recorded:
    """One call of the trace: operator, arguments by name with Labels for tensors, and the labels of its results."""

    operator: str
    arguments: Mapping[str, Any]
    results: Sequence[Labels]

    @property
    def tensors(self) -> list[Labels]:
        """The labels of all tensors among the arguments, lists included."""
        return labels_among(self.arguments)

    def get(self, *names: str) -> Any:
        return next((self.arguments[name] for name in names if name in self.arguments), None)


class Occurrences:
    """Where the units of groups lie in labelled tensors.

    Args:
        nodes: of each group the nodes that move with it.
    """

    def __init__(self, nodes: Sequence[Array]) -> None:
        total = max((int(each.max()) + 1 for each in nodes if len(each)), default=0)
        each = numpy.concatenate([numpy.zeros(0, numpy.int64), *nodes])
        groups = numpy.repeat(numpy.arange(len(nodes)), [len(found) for found in nodes])
        order = numpy.lexsort((groups, each))
        self.groups = groups[order]
        self.starts = numpy.searchsorted(each[order], numpy.arange(total + 1))
        self.total = total
        self._known: dict[int, tuple[Place, ...]] = {}

    def of(self, labels: Labels) -> tuple[Place, ...]:
        """The groups along each space of a tensor."""
        found = self._known.get(id(labels))
        if found is None:
            found = tuple((int(group), space.axes) for space in labels.spaces for group in self._groups(space.ids))
            self._known[id(labels)] = found
        return found

    def _groups(self, ids: Array) -> Array:
        ids = ids[(ids >= 0) & (ids < self.total)]
        first, counts = self.starts[ids], self.starts[ids + 1] - self.starts[ids]
        deepest = int(counts.max()) if len(counts) else 0
        return numpy.unique(numpy.concatenate([
            numpy.zeros(0, numpy.int64), *(self.groups[first[counts > depth] + depth] for depth in range(deepest))
        ]))  # fmt: skip


class Equations:
    """Unknown powers of each group, and sums of them that must be zero.

    Args:
        signs: whether powers count modulo 2.
    """

    def __init__(self, signs: bool) -> None:
        self.signs = signs
        self._unknowns: dict[int, list[int]] = defaultdict(list)
        self._numbers: dict[tuple[int, object], int] = {}
        self._zero: dict[int, list[Sum]] = defaultdict(list)

    def unknown(self, group: int, key: object) -> int:
        """The number of a group's unknown with a key, new or known."""
        number = self._numbers.setdefault((group, key), len(self._numbers))
        if number not in self._unknowns[group]:
            self._unknowns[group].append(number)
        return number

    def unknowns(self, group: int) -> list[int]:
        return self._unknowns[group]

    def vanish(self, group: int, *sums: Sum) -> None:
        """The sum of some sums is zero."""
        total = added(sums)
        if total and total not in self._zero[group]:
            self._zero[group].append(total)

    def equal(self, group: int, one: Sum, other: Sum) -> None:
        """Two sums are the same."""
        self.vanish(group, one, {number: -count for number, count in other.items()})

    def solve(self, group: int) -> Array:
        """A basis of all solutions `[solutions, unknowns]`, integers where there are such of small size."""
        columns = {number: place for place, number in enumerate(self._unknowns[group])}
        matrix = numpy.zeros((len(self._zero[group]), len(columns)))
        for row, total in zip(matrix, self._zero[group], strict=True):
            for number, count in total.items():
                row[columns[number]] += count
        return _null_space(matrix % 2 if self.signs else matrix, self.signs)


def added(sums: Iterable[Sum]) -> Sum:
    """A sum of sums without what cancels."""
    total: Sum = defaultdict(int)
    for one in sums:
        for number, count in one.items():
            total[number] += count
    return {number: count for number, count in total.items() if count}


def _null_space(matrix: Array, binary: bool) -> Array:
    """A basis of what a matrix maps to zero, by elimination; over the field of two elements if `binary`."""
    rows, columns = matrix.shape
    pivots: list[int] = []
    for column in range(columns):
        rank = len(pivots)
        below = numpy.flatnonzero(numpy.abs(matrix[rank:, column]) > 1e-9)
        if not len(below):
            continue
        matrix[[rank, rank + below[0]]] = matrix[[rank + below[0], rank]]
        matrix[rank] /= matrix[rank, column]
        others = numpy.abs(matrix[:, column]) > 1e-9
        others[rank] = False
        matrix[others] -= matrix[others, column][:, None] * matrix[rank]
        if binary:
            matrix %= 2
        pivots.append(column)
    free = [column for column in range(columns) if column not in pivots]
    basis = numpy.zeros((len(free), columns))
    for row, column in zip(basis, free, strict=True):
        row[column] = 1
        row[pivots] = -matrix[: len(pivots), column]
    basis = basis % 2 if binary else basis
    # Powers that are no integers have no use here.
    whole = numpy.abs(basis - basis.round()).max(1, initial=0) < 1e-6
    return basis[whole].round().astype(numpy.int64)


class State:
    """The sums of all values so far, and how calls make more of them."""

    def __init__(self, occurrences: Occurrences, equations: Equations) -> None:
        self.occurrences, self.equations = occurrences, equations
        self.sums: dict[int, dict[Place, Sum]] = {}

    def read(self, labels: Labels) -> dict[Place, Sum]:
        """What is known of a value; one that no call made does not scale."""
        return self.sums.get(id(labels), {at: {} for at in self.occurrences.of(labels)})

    def hold(self, labels: Labels) -> None:
        """Nothing along any axis of a value may scale."""
        for (group, _), total in self.read(labels).items():
            self.equations.vanish(group, total)

    def write(self, labels: Labels, sums: Mapping[Place, Sum]) -> None:
        self.sums[id(labels)] = {at: sums.get(at, {}) for at in self.occurrences.of(labels)}

    def forbid(self, call: Recorded) -> None:
        """A call of which nothing is known: nothing that it reads may scale, and nothing that it gives does."""
        for labels in call.tensors:
            self.hold(labels)
        for labels in call.results:
            self.write(labels, {})

    def keep(self, labels: Labels, results: Sequence[Labels], whole: bool = True) -> None:
        """Results whose values are those of one value in other places, or sums of them over places that scale alike.

        Args:
            whole: whether every result depends on all values; of a slice, what it leaves out may scale.
        """
        before = self.read(labels)
        after: list[dict[Place, Sum]] = [{} for _ in results]
        for group in {group for group, _ in before}:
            totals = [total for (number, _), total in before.items() if number == group]
            places = [[at for at in self.occurrences.of(result) if at[0] == group] for result in results]
            reached = [bool(found) for found in places]
            if len(totals) > 1 or any(len(found) > 1 for found in places) or not (all if whole else any)(reached):
                for total in totals:
                    self.equations.vanish(group, total)
                continue
            for found, sums in zip(places, after, strict=True):
                if found:
                    sums[found[0]] = totals[0]
        for result, sums in zip(results, after, strict=True):
            self.write(result, sums)

    def product(self, parts: Parts, summed: Iterable[int], result: tuple[Labels, Mapping[int, int]] | None) -> None:
        """A sum of products over some places of an index space; without a result, one that may not scale."""
        summed = set(summed)
        carried = self._carried(parts)
        after: dict[Place, Sum] = {}
        for group, found in carried.items():
            contracted = [total for at, total in found if at <= summed]
            kept = [(at - summed, total) for at, total in found if not at <= summed]
            self.equations.vanish(group, *contracted)
            ends = self._ends(group, result)
            if ends and kept and len(ends) == 1 and frozenset().union(*(at for at, _ in kept)) == ends[0][0]:
                after[ends[0][1]] = added(total for _, total in kept)
            elif not ends and len({at for at, _ in kept}) == 1:
                self.equations.vanish(group, *(total for _, total in kept))
            else:
                for _, total in kept:
                    self.equations.vanish(group, total)
        if result is not None:
            self.write(result[0], after)

    def join(self, parts: Parts, result: tuple[Labels, Mapping[int, int]], along: int | None = None) -> None:
        """A sum of operands, or operands one behind the other along a place: all must scale alike.

        Args:
            along: where operands stand one behind the other; an operand need not have a group that lies along it.
        """
        after: dict[Place, Sum] = {}
        for group, found in self._carried(parts).items():
            ends = self._ends(group, result)
            counts = [sum(at[0] == group for at in self.occurrences.of(labels)) for labels, _ in parts]
            apart = along is not None and all(along in at for at, _ in found)
            alike = all(at == ends[0][0] for at, _ in found) if len(ends) == 1 else False
            if len(ends) != 1 or max(counts) > 1 or not alike or not (apart or min(counts) == 1):
                for _, total in found:
                    self.equations.vanish(group, total)
                continue
            for _, total in found[1:]:
                self.equations.equal(group, found[0][1], total)
            after[ends[0][1]] = found[0][1]
        self.write(result[0], after)

    def _carried(self, parts: Parts) -> dict[int, list[tuple[frozenset[int], Sum]]]:
        carried: dict[int, list[tuple[frozenset[int], Sum]]] = defaultdict(list)
        for labels, places in parts:
            for (group, axes), total in self.read(labels).items():
                carried[group].append((frozenset(places[axis] for axis in axes), total))
        return carried

    def _ends(self, group: int, result: tuple[Labels, Mapping[int, int]] | None) -> list[tuple[frozenset[int], Place]]:
        if result is None:
            return []
        labels, places = result
        return [(frozenset(places[axis] for axis in at[1]), at) for at in self.occurrences.of(labels) if at[0] == group]


PowerRule = Callable[[State, Recorded], None]
"""Gives the sums of a call's results from those of its arguments."""


def follow(
    calls: Sequence[Recorded],
    occurrences: Occurrences,
    equations: Equations,
    parameters: Iterable[Labels],
    rule: Callable[[Recorded, bool], PowerRule],
) -> None:
    """Adds the equations of all calls; `rule` says what a call does, for signs or else for scales."""
    state = State(occurrences, equations)
    for labels in parameters:
        sums = {at: {equations.unknown(at[0], (id(labels), at[1])): 1} for at in occurrences.of(labels)}
        state.sums[id(labels)] = sums
    for call in calls:
        rule(call, equations.signs)(state, call)
