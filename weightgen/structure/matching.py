"""Matching: the order, and the signs, in which a network's units are most like those of a reference.

Coordinate descent over axis groups, each step an assignment of largest total similarity (weight matching of Git
Re-Basin, https://arxiv.org/abs/2209.04836), for any architecture whose groups are known. Two things are added to it:

- The first sweep takes groups in the order in which they can be known: from the network's fixed inputs and outputs to
  the groups that touch them, and on. A member is looked at only if the other groups along its tensor are in order.
- Heads can only be compared when the places within them are in order, and those only when the heads are: the similarity
  of two heads is that of the best order within them, for each pair of heads an assignment of its own.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from weightgen.structure.along import along
from weightgen.structure.axes import AxisGroup
from weightgen.structure.nesting import nesting

SWEEPS = 12
"""Most sweeps over all groups in search of the order."""
MOST_SIGNS = 3
"""Of more independent signs of a unit only so many are looked for."""

Tensors = Mapping[str, Tensor]


class Matcher:
    """Finds orders and signs for networks of one architecture.

    Args:
        groups: the architecture's axis groups.
    """

    def __init__(self, groups: Sequence[AxisGroup]) -> None:
        self.groups = list(groups)
        self.along = [along(group) for group in groups]
        self.nesting = nesting(groups)
        self.flips = [_patterns(group) for group in groups]

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
        return ((number, None) for number in sorted(range(len(self.groups)), key=lambda at: len(self.nesting.outer[at])))

    def _known(self, number: int, done: set[int]) -> bool:
        inner = [lists[0] for family in self.nesting.families[number] for lists in family.values()]
        return any(self._members(at, done, {number}) for at in (number, *inner))

    def _members(self, number: int, done: set[int] | None, besides: Iterable[int] = ()) -> list[int]:
        """The members of a group that can be compared when some groups are in order; all if `done` is None."""
        direct = self.nesting.direct[number]
        if done is None:
            return list(direct)
        return [position for position in direct if self.nesting.needs[number][position] <= done | set(besides)]

    def _step(self, number: int, done: set[int] | None, work: dict[str, Tensor], target: Tensors) -> Tensor:
        """Brings one group in order; bool `[networks]`, which of them changed."""
        group, flips = self.groups[number], self.flips[number]
        with torch.no_grad():
            similarity, pattern = self._similarity(number, number, done, work, target)
            if similarity is None:
                similarity, pattern = self._nothing(number, work)
            if done is None or self.nesting.families[number]:
                for family in self.nesting.families[number]:
                    similarity = similarity + self._within(number, family, done, work, target)
            order = assign(similarity)
        identity = torch.arange(group.size)
        moved = (order != identity).any(1)
        if bool(moved.any()):
            for place in self.along[number]:
                work[place.tensor] = place.permuted(work[place.tensor], order)
        if pattern is not None:
            chosen = pattern.gather(2, order[:, :, None]).squeeze(2)  # [networks, units]
            flipped = (chosen != 0).any(1)
            if bool(flipped.any()):
                moved = moved | flipped
                for position, place in enumerate(self.along[number]):
                    factor = flips[:, position][chosen]
                    if bool((factor < 0).any()):
                        tensor = work[place.tensor]
                        work[place.tensor] = tensor * place.factors(tensor, factor.to(tensor.dtype))
        return moved

    def _nothing(self, number: int, work: Tensors) -> tuple[Tensor, None]:
        count = len(next(iter(work.values())))
        return torch.zeros(count, self.groups[number].size, self.groups[number].size), None

    def _similarity(
        self, mine: int, theirs: int, done: set[int] | None, work: Tensors, target: Tensors, besides: Iterable[int] = ()
    ) -> tuple[Tensor | None, Tensor | None]:
        """Of the reference's units of one group to the network's of another of its kind, and the best pattern of signs.

        Returns:
            `[networks, units, units]`, None if nothing can be compared; and int64 of this shape, None without signs.
        """
        positions = self._members(mine, done, besides)
        single = len(self.flips[mine]) == 1
        totals: list[Tensor | None] = [None] * len(self.flips[mine])
        for position in positions:
            one, other = self.along[mine][position], self.along[theirs][position]
            if not target[one.tensor].is_floating_point():
                continue
            part = one.units(target[one.tensor]) @ other.units(work[other.tensor]).mT
            for number, total in enumerate(totals):
                signed = part if self.flips[mine][number, position] > 0 else -part
                totals[number] = signed if total is None else total + signed
        found = [total for total in totals if total is not None]
        if single or not found:
            return (found[0] if found else None), None
        best = torch.stack(found).max(0)
        return best.values, best.indices

    def _within(self, number: int, family: dict[int, list[int]], done: set[int] | None, work, target) -> Tensor:
        """The similarity of outer units by the groups within them, each in its best order."""
        total = self._nothing(number, work)[0]
        for unit, other in itertools.product(range(self.groups[number].size), repeat=2):
            for mine, theirs in zip(family[unit], family[other], strict=True):
                similarity, _ = self._similarity(mine, theirs, done, work, target, {number})
                if similarity is not None:
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


def _patterns(group: AxisGroup) -> Tensor:
    """`[patterns, members]` of ±1: all combinations of a group's signs; the first changes nothing."""
    signs = numpy.array(group.signs[:MOST_SIGNS], dtype=numpy.int64).reshape(-1, len(group.members))
    chosen = numpy.array(list(itertools.product((0, 1), repeat=len(signs))), numpy.int64).reshape(2 ** len(signs), -1)
    return torch.from_numpy(1 - 2 * ((chosen @ signs) % 2))
