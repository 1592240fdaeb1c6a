"""How a reshape decomposes: every axis is split into pieces, then neighbouring pieces are merged."""

import itertools
from collections.abc import Sequence


def split_axes(shape: Sequence[int], target: Sequence[int]) -> list[tuple[int, ...]] | None:
    """For each axis of `shape` the sizes of its pieces, so that neighbouring pieces merge to `target`.

    Both without axes of size 1, and with the same number of values. None if there are no such pieces, as from (4, 6)
    to (3, 8).
    """
    borders = sorted({1, *_borders(shape), *_borders(target)})
    if any(after % before for before, after in itertools.pairwise(borders)):
        return None
    pieces, start = [], 1
    for border in _borders(shape):
        inner = [value for value in borders if start <= value <= border]
        pieces.append(tuple(after // before for before, after in itertools.pairwise(inner)))
        start = border
    return pieces


def merged_axes(shape: Sequence[int], target: Sequence[int]) -> list[tuple[int, int]]:
    """For each axis of `target` the first of the axes of `shape` that merge to it, and how many they are."""
    runs, first = [], 0
    for size in target:
        count, product = 0, 1
        while product < size:
            product *= shape[first + count]
            count += 1
        runs.append((first, count))
        first += count
    return runs


def _borders(shape: Sequence[int]) -> list[int]:
    return list(itertools.accumulate(shape, lambda one, other: one * other))
