"""Matching: the order, and the signs, in which a network's units are most like those of a reference.

Coordinate descent over axis groups, each step an assignment of largest total similarity (weight matching of Git
Re-Basin, https://arxiv.org/abs/2209.04836), for any architecture whose groups are known. Two things are added to it:

- The first sweep takes groups in the order in which they can be known: from the network's fixed inputs and outputs to
  the groups that touch them, and on. A member is looked at only if the other groups along its tensor are in order.
- Heads can only be compared when the places within them are in order, and those only when the heads are: the similarity
  of two heads is that of the best order within them, for each pair of heads an assignment of its own.
"""

import itertools
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from weightgen.structure.along import along
from weightgen.structure.axes import AxisGroup
from weightgen.structure.nesting import nesting

SWEEPS = 12
"""Most sweeps over all groups in search of the order."""
MOST_SIGNS = 4
"""Of more signs of a unit that concern the same members only so many are looked for."""

Tensors = Mapping[str, Tensor]


class Matcher:
    """Finds orders and signs for networks of one architecture.

    Args:
        groups: the architecture's axis groups.
        compared: the tensors that units are compared in; a group that has none of them is compared in all its own.
    """

    def __init__(self, groups: Sequence[AxisGroup], compared: Container[str] | None = None) -> None:
        self.groups = list(groups)
        self.along = [along(group) for group in groups]
        self.nesting = nesting(groups)
        self.compared = [
            [position for position in direct if compared is None or group.members[position].tensor in compared]
            or list(direct)
            for group, direct in zip(self.groups, self.nesting.direct, strict=True)
        ]
        self.signs = [_sign_choices(group) for group in groups]

    def match(self, tensors: Tensors, reference: Tensors) -> dict[str, Tensor]:
        """Tensors `[networks, …]` with their units in order; differentiable, the order taken as given.

        Args:
            reference: `[1, …]`, or `[networks, …]`, each the reference of one.
        """
        out = dict(tensors)
        count = len(next(iter(out.values()))) if out else 0
        names = sorted({place.tensor for places in self.along for place in places})
        active = torch.arange(count)
        for sweep in range(SWEEPS):
            whole = len(active) == count
            work = {name: out[name] if whole else out[name][active] for name in names}
            target = {
                name: reference[name] if whole or len(reference[name]) == 1 else reference[name][active]
                for name in names
            }
            changed = torch.zeros(len(active), dtype=torch.bool)
            for number, members in self._first() if sweep == 0 else self._all():
                changed |= self._step(number, members, work, target)
            for name in names:
                out[name] = work[name] if whole else out[name].index_copy(0, active, work[name])
            # A sweep over all members that changes nothing changes nothing when it is repeated.
            if sweep:
                active = active[changed]
            if len(active) == 0:
                break
        return out

    def _first(self) -> Iterable[tuple[int, set[int] | None]]:
        """Groups in the order in which they can be known, with the groups that are in order before each."""
        done: set[int] = set()
        waiting = list(range(len(self.groups)))
        while waiting:
            ready = [number for number in waiting if not self.nesting.outer[number] & set(waiting)]
            known = [number for number in ready if self._known(number, done)]
            # Where nothing is known, a cycle must be entered somewhere, with all there is.
            number = (known or ready or waiting)[0]
            yield number, set(done) if known else None
            done.add(number)
            waiting.remove(number)

    def _all(self) -> Iterable[tuple[int, None]]:
        return (
            (number, None) for number in sorted(range(len(self.groups)), key=lambda at: len(self.nesting.outer[at]))
        )

    def _known(self, number: int, done: set[int]) -> bool:
        inner = [lists[0] for family in self.nesting.families[number] for lists in family.values()]
        return any(self._members(at, done, {number}) for at in (number, *inner))

    def _members(self, number: int, done: set[int] | None, besides: Iterable[int] = ()) -> list[int]:
        """The members of a group that can be compared when some groups are in order; all if `done` is None."""
        direct = self.compared[number]
        if done is None:
            return list(direct)
        return [position for position in direct if self.nesting.needs[number][position] <= done | set(besides)]

    def _step(self, number: int, done: set[int] | None, work: dict[str, Tensor], target: Tensors) -> Tensor:
        """Brings one group in order; bool `[networks]`, which of them changed."""
        group = self.groups[number]
        with torch.no_grad():
            similarity, patterns = self._similarity(number, number, done, work, target)
            for family in self.nesting.families[number]:
                similarity = similarity + self._within(number, family, done, work, target)
            order = assign(similarity)
        moved = (order != torch.arange(group.size)).any(1)
        if bool(moved.any()):
            for place in self.along[number]:
                work[place.tensor] = place.permuted(work[place.tensor], order)
        for choice, pattern in zip(self.signs[number], patterns, strict=True):
            chosen = pattern.gather(2, order[:, :, None]).squeeze(2)  # [networks, units]
            flipped = (chosen != 0).any(1)
            if bool(flipped.any()):
                moved = moved | flipped
                for column, position in enumerate(choice.members):
                    place = self.along[number][position]
                    tensor = work[place.tensor]
                    factor = choice.patterns[:, column][chosen].to(tensor.dtype)
                    work[place.tensor] = tensor * place.factors(tensor, factor)
        return moved

    def _similarity(
        self, mine: int, theirs: int, done: set[int] | None, work: Tensors, target: Tensors, besides: Iterable[int] = ()
    ) -> tuple[Tensor, list[Tensor]]:
        """Of the reference's units of one group to the network's of another of its kind, in the best of their signs.

        Returns:
            `[networks, units, units]`, for each choice of signs the number of the best pattern, int64 of that shape.
        """
        parts: dict[int, Tensor] = {}
        for position in self._members(mine, done, besides):
            one, other = self.along[mine][position], self.along[theirs][position]
            if target[one.tensor].is_floating_point():
                parts[position] = one.units(target[one.tensor]) @ other.units(work[other.tensor]).mT
        size = self.groups[mine].size
        empty = torch.zeros(len(next(iter(work.values()))), size, size)
        signed = {position for choice in self.signs[mine] for position in choice.members}
        total = sum(part for position, part in parts.items() if position not in signed) + empty
        patterns = []
        for choice in self.signs[mine]:
            known = [(column, parts[position]) for column, position in enumerate(choice.members) if position in parts]
            trials = [
                sum(part if pattern[column] > 0 else -part for column, part in known) + empty
                for pattern in choice.patterns.tolist()
            ]
            best = torch.stack(trials).max(0)
            total = total + best.values
            patterns.append(best.indices)
        return total, patterns

    def _within(self, number: int, family: dict[int, list[int]], done: set[int] | None, work, target) -> Tensor:
        """The similarity of outer units by the groups within them, each in its best order."""
        size = self.groups[number].size
        total = torch.zeros(len(next(iter(work.values()))), size, size)
        for unit, other in itertools.product(range(size), repeat=2):
            for mine, theirs in zip(family[unit], family[other], strict=True):
                similarity, _ = self._similarity(mine, theirs, done, work, target, {number})
                order = assign(similarity)
                total[:, unit, other] += similarity.gather(2, order[:, :, None]).sum((1, 2))
        return total


def assign(similarity: Tensor) -> Tensor:
    """The assignment of largest total similarity, one a network: int64 `[networks, units]`."""
    arrays = similarity.detach().double().cpu().numpy()
    found = numpy.empty(arrays.shape[:2], dtype=numpy.int64)
    for row, array in zip(found, arrays, strict=True):
        row[:] = linear_sum_assignment(array, maximize=True)[1]
    return torch.from_numpy(found)


@dataclass(frozen=True)
class _SignChoice:
    """Signs of a unit that concern the same members, apart from those of others.

    Args:
        members: the numbers of the members.
        patterns: int64 `[patterns, members]` of ±1, all combinations; the first changes nothing.
    """

    members: tuple[int, ...]
    patterns: Tensor


def _sign_choices(group: AxisGroup) -> list[_SignChoice]:
    signs = numpy.array(group.signs, dtype=numpy.int64).reshape(-1, len(group.members))
    shared = connected_components((signs @ signs.T) > 0, directed=False)[1] if len(signs) else signs[:, 0]
    choices = []
    for part in numpy.unique(shared):
        rows = signs[shared == part][:MOST_SIGNS]
        members = numpy.flatnonzero(rows.any(0))
        chosen = numpy.array(list(itertools.product((0, 1), repeat=len(rows))), dtype=numpy.int64)
        patterns = 1 - 2 * ((chosen @ rows[:, members]) % 2)
        choices.append(_SignChoice(tuple(members.tolist()), torch.from_numpy(patterns)))
    return choices
