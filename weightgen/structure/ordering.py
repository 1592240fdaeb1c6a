"""Smoothing: the units of an axis group in an order in which neighbours are alike, the network's function unchanged.

After Neural Metamorphosis, https://arxiv.org/abs/2410.11878: what a unit is, is all its slices in all tensors, put
together; two units are as far from one another as these are, and the order is a shortest Hamiltonian path, open at both
ends. It is sought by nearest neighbours and improved by 2-opt and Or-opt on the distances as they are: the published
code gives them to a solver of integers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from weightgen.structure.axes import AxisGroup, Member
from weightgen.structure.permutation import permuted

Array = numpy.ndarray

STARTS = 8
"""Paths of nearest neighbours that are improved; the shortest is kept. Of a large group it is one."""
LARGE = 128
"""Units from which on a group is large: a path of nearest neighbours is then begun at few of them."""
LONGEST_SEGMENT = 3
"""Neighbouring units that Or-opt moves at once."""
MOVES, EFFORT = 4, 400_000_000
"""Most improvements of one path: so many times its units, and over all so many moves looked at. Very large groups end
before no move is left."""


@dataclass(frozen=True)
class Smoothing:
    """A network in smooth order.

    Args:
        tensors: name → tensor.
        orders: for each group int64 `[units]`: the unit that now stands at each place.
        before: length of each group's path as it was: the total variation along it.
        after: as it is now.
    """

    tensors: dict[str, Tensor]
    orders: list[Tensor]
    before: list[float]
    after: list[float]


def smooth(tensors: Mapping[str, Tensor], groups: Sequence[AxisGroup], ignore: Sequence[str] = ()) -> Smoothing:
    """Brings the units of each group, one group after the other, into the order of a shortest path.

    Args:
        tensors: name → tensor, as in a state dict.
        groups: axis groups of the network.
        ignore: ends of names of tensors that are permuted with their units but say nothing of how alike these are,
            such as running statistics.
    """
    out = dict(tensors)
    orders, before, after = [], [], []
    for group in groups:
        told = [member for member in group.members if not member.tensor.endswith(tuple(ignore) or ("\0",))]
        distance = unit_distances(out, AxisGroup(group.size, tuple(told), group.kin))
        order = shortest_path(distance)
        old, new = path_length(distance, numpy.arange(group.size)), path_length(distance, order)
        if new >= old:  # the order that was there is as good
            order, new = numpy.arange(group.size), old
        orders.append(torch.from_numpy(order))
        before.append(old)
        after.append(new)
        out = permuted(out, group, orders[-1])
    return Smoothing(out, orders, before, after)


def unit_distances(tensors: Mapping[str, Tensor], group: AxisGroup, power: float = 1.0) -> Array:
    """float64 `[units, units]`: distances between all slices of two units, as L1 (the published choice) or L2 norms."""
    slices = [unit_slices(tensors[member.tensor], member, group.size) for member in group.members]
    floating = [part.double() for part in slices if part.is_floating_point()]
    if not floating:
        return numpy.zeros((group.size, group.size))
    units = torch.cat(floating, dim=1)
    return torch.cdist(units, units, p=power, compute_mode="donot_use_mm_for_euclid_dist").numpy()


def unit_slices(tensor: Tensor, member: Member, size: int) -> Tensor:
    """`[units, values of the unit]`: what each of a group's `size` units owns of one tensor."""
    if member.within is not None:
        axis, start, stop = member.within
        tensor = tensor.narrow(axis, start, stop - start)
    indices = torch.from_numpy(member.indices(size))
    return tensor.movedim(member.axis, 0)[indices].reshape(size, -1)


def path_length(distance: Array, order: Array) -> float:
    """The sum of the distances between neighbours."""
    return float(distance[order[:-1], order[1:]].sum())


def shortest_path(distance: Array) -> Array:
    """A short open path through all units, int64 `[units]`; `distance` float `[units, units]`, symmetric.

    Of paths of nearest neighbours from every unit (from `STARTS` of a large group) the shortest are improved until
    neither reversing a part (2-opt) nor moving up to `LONGEST_SEGMENT` neighbours elsewhere (Or-opt) shortens them.
    """
    size = len(distance)
    if size < 3:
        return numpy.arange(size)
    # A unit that is nowhere, as near to all others, stands before the first and behind the last: the path is open.
    padded = numpy.zeros((size + 1, size + 1))
    padded[:size, :size] = distance
    starts = numpy.arange(size) if size < LARGE else numpy.linspace(0, size - 1, STARTS).astype(numpy.int64)
    paths = _nearest_neighbours(numpy.asarray(distance, dtype=numpy.float64), starts)
    lengths = distance[paths[:, :-1], paths[:, 1:]].sum(1)
    best = numpy.argsort(lengths, kind="stable")[: STARTS if size < LARGE else 1]
    improved = [_improved(padded, paths[start]) for start in best]
    return min(improved, key=lambda path: path_length(distance, path))


def _nearest_neighbours(distance: Array, starts: Array) -> Array:
    """int64 `[starts, units]`: always on to the nearest unit that was not yet visited, from all starts at once."""
    size, rows = len(distance), numpy.arange(len(starts))
    paths = numpy.empty((len(starts), size), dtype=numpy.int64)
    paths[:, 0] = starts
    open_ = numpy.ones((len(starts), size), dtype=bool)
    open_[rows, starts] = False
    for place in range(1, size):
        paths[:, place] = numpy.where(open_, distance[paths[:, place - 1]], numpy.inf).argmin(1)
        open_[rows, paths[:, place]] = False
    return paths


def _improved(distance: Array, path: Array) -> Array:
    """The path after the best of all moves, again and again; `distance` has the unit that is nowhere at its end."""
    for _ in range(min(MOVES * len(path), EFFORT // len(path) ** 2)):
        candidates = [_best_reversal(distance, path)]
        candidates += [
            _best_shift(distance, path, length) for length in range(1, min(LONGEST_SEGMENT, len(path) - 1) + 1)
        ]
        gain, better = min(candidates, key=lambda candidate: candidate[0])
        # Smaller gains are rounding, and would go round in circles.
        if gain > -1e-9 * (1 + distance.max()):
            break
        path = better
    return path


def _best_reversal(distance: Array, path: Array) -> tuple[float, Array]:
    """2-opt: the change in length, and the path, when the part from place i to place j is reversed."""
    ends = _with_ends(distance, path)
    before, inner, after = ends[:-2], ends[1:-1], ends[2:]
    change = distance[before][:, inner] + distance[inner][:, after]
    change -= distance[before, inner][:, None] + distance[inner, after][None]
    change[numpy.tril_indices(len(path))] = 0
    first, last = numpy.unravel_index(change.argmin(), change.shape)
    return change[first, last], numpy.concatenate([path[:first], path[first : last + 1][::-1], path[last + 1 :]])


def _best_shift(distance: Array, path: Array, length: int) -> tuple[float, Array]:
    """Or-opt: the change in length, and the path, when `length` neighbours go between two others, maybe turned."""
    ends, size = _with_ends(distance, path), len(path)
    first = numpy.arange(size - length + 1)  # place of the segment's first unit
    before, head, tail, after = ends[first], ends[first + 1], ends[first + length], ends[first + length + 1]
    freed = distance[before, after] - distance[before, head] - distance[tail, after]
    left, right = ends[:-1], ends[1:]  # the gaps that there are
    straight = distance[head][:, left] + distance[tail][:, right]
    turned = distance[tail][:, left] + distance[head][:, right]
    change = numpy.minimum(straight, turned) - distance[left, right][None] + freed[:, None]
    gap = numpy.arange(size + 1)[None]
    change[(gap >= first[:, None]) & (gap <= first[:, None] + length)] = 0  # gaps that the segment itself ends at
    start, place = numpy.unravel_index(change.argmin(), change.shape)
    segment = path[start : start + length]
    if turned[start, place] < straight[start, place]:
        segment = segment[::-1]
    rest = numpy.delete(path, numpy.arange(start, start + length))
    # Among the rest, gaps behind the segment have lower numbers, and those of the segment are one.
    return change[start, place], numpy.insert(rest, min(place, max(place - length, start)), segment)


def _with_ends(distance: Array, path: Array) -> Array:
    nowhere = len(distance) - 1
    return numpy.concatenate([[nowhere], path, [nowhere]])
