"""Propagation: how labels pass through the few patterns of which all operators are made.

Each function takes the labels of what goes in, says in the constraints what follows, and gives the labels of what comes
out. The operators themselves stand in `rules`.
"""

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy

from weightgen.structure.constraints import Array, Constraints
from weightgen.structure.labels import Labels, Space
from weightgen.structure.reshaping import merged_axes, split_axes

LARGEST_SPACE = 1 << 20
"""A space of more nodes than this is not made; its axes are fixed instead."""


class Propagation:
    """The patterns, with the constraints they add to."""

    def __init__(self) -> None:
        self.constraints = Constraints()
        self._merged: dict[int, Labels] = {}

    def parameter(self, shape: Sequence[int]) -> Labels:
        """New nodes on every axis, each axis for itself."""
        spaces = [Space((axis,), self.constraints.fresh((size,))) for axis, size in enumerate(shape) if size > 1]
        return Labels(tuple(shape), tuple(spaces))

    def lock(self, labels: Labels, axes: Iterable[int], reason: str) -> Labels:
        """Fixes the indices of some axes at their places; other axes of the same spaces stay free."""
        axes = [labels.axis(axis) for axis in axes]
        for space in labels.spaces:
            locked = [position for position, axis in enumerate(space.axes) if axis in axes]
            if locked:
                keys = numpy.zeros(space.ids.shape, dtype=numpy.int64)
                for position in locked:
                    size = space.ids.shape[position]
                    keys = keys * size + numpy.arange(size).reshape([-1] + [1] * (space.ids.ndim - position - 1))
                self.constraints.fix(space.ids, reason, keys)
        covered = {axis for space in labels.spaces for axis in space.axes}
        more = {axis: reason for axis in axes if axis not in covered and labels.shape[axis] != 1}
        return Labels(labels.shape, labels.spaces, {**more, **labels.fixed})

    def freeze(self, labels: Labels, reason: str) -> None:
        """Fixes all that lies along any axis."""
        self.lock(labels, range(len(labels.shape)), reason)

    def join(self, operands: Sequence[Labels], shape: Sequence[int]) -> Labels:
        """A function of each index by itself, of operands that are broadcast to `shape` from the right."""
        shape = tuple(shape)
        spaces: list[Space] = []
        fixed: dict[int, str] = {}
        for operand in operands:
            shift = len(shape) - len(operand.shape)
            for axis, reason in operand.fixed.items():
                fixed.setdefault(axis + shift, reason)
            spaces += [Space(tuple(axis + shift for axis in space.axes), space.ids) for space in operand.spaces]
        return self._settled(shape, spaces, fixed)

    def reduce(self, labels: Labels, axes: Iterable[int], keep: bool = False) -> Labels:
        """A function of all indices of some axes in which their order does not matter: a sum, a mean, a maximum."""
        axes = {labels.axis(axis) for axis in axes}
        spaces: list[Space] = []
        for space in labels.spaces:
            kept = tuple(position for position, axis in enumerate(space.axes) if axis not in axes)
            if kept:
                ids = space.ids if len(kept) == len(space.axes) else self.constraints.blocks(space.ids, kept)
                spaces.append(Space(tuple(space.axes[position] for position in kept), ids))
        fixed = {axis: reason for axis, reason in labels.fixed.items() if axis not in axes}
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(labels.shape))
        reduced = self._settled(shape, spaces, fixed)
        return reduced if keep else self.squeeze(reduced, axes)

    def renewed(self, labels: Labels, axes: Iterable[int], shape: Sequence[int], reason: str) -> Labels:
        """A function of each place among all places of some axes, which are fixed: pooling, a choice by number.

        Args:
            shape: of the result, which may have other sizes on these axes.
        """
        axes = [labels.axis(axis) for axis in axes]
        kept = self.reduce(self.lock(labels, axes, reason), axes, keep=True)
        fixed = {axis: reason for axis in axes if shape[axis] != 1}
        return Labels(tuple(shape), kept.spaces, {**kept.fixed, **fixed})

    def normalise(self, labels: Labels, axes: Iterable[int]) -> Labels:
        """A function of each index and of all indices of some axes together: softmax, normalisation."""
        # Joined with what it depends on, a constant is none any more.
        return self.join([labels, self.reduce(labels, axes, keep=True)], labels.shape)

    def contract(
        self, operands: Sequence[Labels], places: Sequence[Sequence[int]], shape: Sequence[int], summed: Iterable[int]
    ) -> Labels:
        """A sum of products over some axes of the index space `shape`, as einsum does.

        Args:
            operands: labels of the factors.
            places: for each factor, where in the index space each of its axes lies.
            summed: the axes of the index space that the result does not have.
        """
        spread = []
        for operand, axes in zip(operands, places, strict=True):
            sizes = [1] * len(shape)
            for axis, place in enumerate(axes):
                sizes[place] = operand.shape[axis]
            spread.append(operand.moved(dict(enumerate(axes)), sizes))
        return self.reduce(self.join(spread, shape), summed)

    def squeeze(self, labels: Labels, axes: Iterable[int]) -> Labels:
        """Without some axes of size 1."""
        axes = set(axes)
        left = [axis for axis in range(len(labels.shape)) if axis not in axes]
        places = {axis: place for place, axis in enumerate(left)}
        return labels.moved(places, [labels.shape[axis] for axis in left])

    def unsqueeze(self, labels: Labels, axis: int) -> Labels:
        """With one more axis of size 1."""
        axis = axis % (len(labels.shape) + 1)
        places = {old: old + (old >= axis) for old in range(len(labels.shape))}
        return labels.moved(places, [*labels.shape[:axis], 1, *labels.shape[axis:]])

    def permute(self, labels: Labels, order: Sequence[int]) -> Labels:
        """Axes in another order; `order[i]` is the axis that comes to place i."""
        order = [labels.axis(axis) for axis in order]
        places = {axis: place for place, axis in enumerate(order)}
        return labels.moved(places, [labels.shape[axis] for axis in order])

    def expand(self, labels: Labels, shape: Sequence[int]) -> Labels:
        """Broadcast to a shape; what is repeated is the same at every index."""
        return self.join([labels], shape)

    def reshape(self, labels: Labels, shape: Sequence[int]) -> Labels:
        """The same values in the same order in another shape: axes split, then neighbours merged."""
        shape = tuple(int(size) for size in shape)
        if labels.shape == shape:
            return labels
        dense = self.squeeze(labels, [axis for axis, size in enumerate(labels.shape) if size == 1])
        target = [size for size in shape if size != 1]
        pieces = split_axes(dense.shape, target)
        if pieces is None:
            reason = f"reshaped from {list(labels.shape)} to {list(shape)}"
            self.freeze(labels, reason)
            return Labels.all_fixed(shape, reason)
        split = self._split(dense, pieces)
        runs = merged_axes(split.shape, target)
        merged = split
        for first, count in reversed(runs):
            if count > 1:
                merged = self._merge(merged, first, count)
        places = dict(enumerate(axis for axis, size in enumerate(shape) if size != 1))
        return merged.moved(places, shape)

    def take(self, labels: Labels, axis: int, index: Array) -> Labels:
        """Some indices of an axis, in any order, perhaps several times: a slice, a flip, a shift, a choice."""
        axis = labels.axis(axis)
        single = len(index) == 1
        shape = tuple(len(index) if place == axis else size for place, size in enumerate(labels.shape))
        distinct = len(numpy.unique(index))
        spaces: list[Space] = []
        for space in labels.spaces:
            if axis not in space.axes:
                spaces.append(space)
                continue
            position = space.axes.index(axis)
            ids = space.ids.take(index, position)
            if distinct < labels.shape[axis]:
                self.constraints.mark(ids)
            if distinct < len(index):
                copies = self.constraints.fresh(ids.shape)
                self.constraints.attach(copies, ids)
                ids = numpy.where(ids < 0, ids, copies)
            if not single:
                spaces.append(Space(space.axes, ids))
            elif len(space.axes) > 1:
                spaces.append(Space(tuple(place for place in space.axes if place != axis), ids.squeeze(position)))
        fixed = {place: reason for place, reason in labels.fixed.items() if place != axis or not single}
        return self._settled(shape, spaces, fixed)

    def concatenate(self, parts: Sequence[Labels], axis: int) -> Labels:
        """Tensors one behind the other along an axis."""
        axis = parts[0].axis(axis)
        parts = [part for part in parts if part.shape[axis] > 0] or [parts[0]]
        if len(parts) == 1:
            return parts[0]
        shape = list(parts[0].shape)
        shape[axis] = sum(part.shape[axis] for part in parts)
        touched = {place for part in parts for space in part.at(axis) for place in space.axes}
        axes = tuple(sorted({*touched, axis}))
        # What does not lie along the axis is common to all parts.
        rest = self.join(
            [_without(part, axis) for part in parts], [1 if at == axis else n for at, n in enumerate(shape)]
        )
        uniform = all(part.shape[axis] > 1 and axis not in part.fixed for part in parts)
        if not touched and not uniform:
            reason = next((part.fixed[axis] for part in parts if axis in part.fixed), "place in a stack")
            return Labels(tuple(shape), rest.spaces, {**rest.fixed, axis: reason})
        if _product(shape[place] for place in axes) > LARGEST_SPACE:
            reason = "too many indices in a stack"
            for part in parts:
                self.lock(part, axes, reason)
            return Labels(tuple(shape), rest.spaces, {**rest.fixed, **dict.fromkeys(axes, reason)})
        pieces: list[Array] = []
        for part in parts:
            ids = self._joint(part, axes)
            known = numpy.concatenate([piece.ravel() for piece in pieces]) if pieces else numpy.zeros(0, numpy.int64)
            if numpy.isin(ids[ids >= 0], known).any():
                ids = self.constraints.union(self.constraints.fresh(ids.shape), ids)
            pieces.append(ids)
        joint = Space(axes, numpy.concatenate(pieces, axis=axes.index(axis)))
        return self._settled(tuple(shape), [*rest.spaces, joint], rest.fixed)

    def pad(self, labels: Labels, axis: int, before: int, after: int) -> Labels:
        """Constant values before and behind an axis; negative counts cut off."""
        axis = labels.axis(axis)
        size = labels.shape[axis]
        cut = self.take(labels, axis, numpy.arange(max(-before, 0), size - max(-after, 0)))
        before, after = max(before, 0), max(after, 0)
        if before == after == 0:
            return cut
        if axis in cut.fixed or not cut.at(axis):
            shape = [count + (before + after) * (place == axis) for place, count in enumerate(cut.shape)]
            return Labels(tuple(shape), cut.spaces, {axis: "place in a padded axis", **cut.fixed})
        code = self.constraints.constant()
        sides = [self._constant(cut.shape, axis, count, code) for count in (before, after)]
        return self.concatenate([sides[0], cut, sides[1]], axis)

    def _constant(self, shape: Sequence[int], axis: int, count: int, code: int) -> Labels:
        """The same value everywhere, `count` indices along an axis."""
        space = Space((axis,), numpy.full(count, code))
        return Labels((*shape[:axis], count, *shape[axis + 1 :]), (space,) if count > 1 else ())

    def _settled(self, shape: tuple[int, ...], spaces: Iterable[Space], fixed: Mapping[int, str]) -> Labels:
        """Labels of spaces that may share axes: what they share is made to agree, what lies in another is dropped."""
        together: dict[tuple[int, ...], Array] = {}
        for space in spaces:
            known = together.get(space.axes)
            together[space.axes] = space.ids if known is None else self.constraints.union(known, space.ids)
        kept: dict[tuple[int, ...], Array] = {}
        for axes in sorted(together, key=lambda axes: (-len(axes), axes)):
            ids, within = together[axes], False
            for wide in list(kept):
                shared = [axis for axis in axes if axis in wide]
                positions = tuple(wide.index(axis) for axis in shared)
                if len(shared) == len(axes):
                    kept[wide] = self._owned(kept[wide], positions, ids)
                    within = True
                elif shared:
                    owners = self.constraints.blocks(ids, tuple(axes.index(axis) for axis in shared))
                    self.constraints.blocks(kept[wide], positions, owners)
            if not within:
                kept[axes] = ids
        labels = Labels(shape, tuple(Space(axes, ids) for axes, ids in kept.items()))
        for axis, reason in fixed.items():
            if labels.at(axis):
                self.lock(labels, [axis], reason)
                labels = Labels(shape, tuple(self._told_apart(space, axis) for space in labels.spaces))
        spaces = tuple(space for space in labels.spaces if space.axes[0] not in fixed or len(space.axes) > 1)
        covered = {axis for space in spaces for axis in space.axes}
        return Labels(shape, spaces, {axis: reason for axis, reason in fixed.items() if axis not in covered})

    def _told_apart(self, space: Space, axis: int) -> Space:
        """With other constants for every index of an axis that is fixed: what they met differs from place to place."""
        if axis not in space.axes or len(space.axes) == 1 or not (space.ids < 0).any():
            return space
        ids, empty = space.ids.copy(), space.ids < 0
        place = numpy.indices(ids.shape)[space.axes.index(axis)]
        ids[empty] = self.constraints.constants(ids[empty], place[empty])
        return Space(space.axes, ids)

    def _owned(self, ids: Array, positions: tuple[int, ...], owners: Array) -> Array:
        """Nodes that belong to those of some of their axes; constants that meet owners become nodes."""
        empty = ids < 0
        if empty.any():
            spread = [slice(None) if position in positions else None for position in range(ids.ndim)]
            wide = numpy.broadcast_to(owners[tuple(spread)], ids.shape)
            filled = self.constraints.fresh(ids.shape)
            met = empty & (wide >= 0)
            self.constraints.mark(filled[met], ids[met])
            ids = numpy.where(met, filled, ids)
            both = empty & (wide < 0)
            if both.any():
                ids[both] = self.constraints.constants(ids[both], wide[both])
        self.constraints.blocks(ids, positions, owners)
        return ids

    def _joint(self, labels: Labels, axes: tuple[int, ...]) -> Array:
        """One array of nodes for several axes together, those of size 1 included; new where there is none such yet."""
        shape = tuple(labels.shape[axis] for axis in axes)
        parts: list[Space] = []
        for space in labels.spaces:
            shared = tuple(axis for axis in space.axes if axis in axes)
            if len(shared) == len(space.axes):
                parts.append(space)
            elif shared:
                kept = tuple(space.axes.index(axis) for axis in shared)
                parts.append(Space(shared, self.constraints.blocks(space.ids, kept)))
        fixed = [axis for axis in axes if axis in labels.fixed]
        large = tuple(axis for axis in axes if labels.shape[axis] != 1)
        if not fixed and len(parts) == 1:
            spread = parts[0].ids.reshape([labels.shape[axis] if axis in parts[0].axes else 1 for axis in axes])
            if parts[0].axes == large or (spread < 0).all():
                return numpy.broadcast_to(spread, shape).copy()
        if not fixed and not parts and len(large) == len(axes):
            return numpy.full(shape, self.constraints.constant())
        ids = self.constraints.fresh(shape)
        for part in parts:
            self.constraints.blocks(ids, tuple(axes.index(axis) for axis in part.axes), part.ids)
        if fixed:
            dense = Space(large, ids.reshape([labels.shape[axis] for axis in large]))
            for axis in fixed:
                self.lock(Labels(labels.shape, (dense,)), [axis], labels.fixed[axis])
        return ids

    def _split(self, labels: Labels, pieces: Sequence[tuple[int, ...]]) -> Labels:
        """Each axis as several, of the sizes given for it."""
        starts = [0, *itertools.accumulate(map(len, pieces))]
        spaces, again = [], {}
        for space in labels.spaces:
            # An axis that was merged before falls into what it was then, which says the same with fewer nodes.
            before = self._merged.get(int(space.ids.flat[0]))
            whole = len(space.axes) == 1 and numpy.array_equal(space.ids, space.ids[0] + numpy.arange(len(space.ids)))
            if before is not None and whole and before.shape == tuple(pieces[space.axes[0]]):
                places = dict(enumerate(range(starts[space.axes[0]], starts[space.axes[0] + 1])))
                restored = before.moved(places, before.shape)
                spaces += restored.spaces
                again.update(restored.fixed)
                continue
            axes = [starts[axis] + place for axis in space.axes for place in range(len(pieces[axis]))]
            sizes = [size for axis in space.axes for size in pieces[axis]]
            spaces.append(Space(tuple(axes), space.ids.reshape(sizes)))
        fixed = {
            starts[axis] + place: reason for axis, reason in labels.fixed.items() for place in range(len(pieces[axis]))
        }
        return Labels(tuple(itertools.chain(*pieces)), tuple(spaces), {**fixed, **again})

    def _merge(self, labels: Labels, first: int, count: int) -> Labels:
        """`count` neighbouring axes as one."""
        run = range(first, first + count)
        places = {axis: min(axis, max(first, axis - count + 1)) for axis in range(len(labels.shape))}
        size = _product(labels.shape[axis] for axis in run)
        shape = (*labels.shape[:first], size, *labels.shape[first + count :])
        touching = [space for space in labels.spaces if set(space.axes) & set(run)]
        others = [space.moved(places) for space in labels.spaces if space not in touching]
        fixed = {places[axis]: reason for axis, reason in labels.fixed.items() if axis not in run}
        axes = tuple(sorted({*run, *(axis for space in touching for axis in space.axes)}))
        if not touching:
            reasons = [labels.fixed[axis] for axis in run if axis in labels.fixed]
            return Labels(shape, tuple(others), {**fixed, **({first: reasons[0]} if reasons else {})})
        if _product(labels.shape[axis] for axis in axes) > LARGEST_SPACE:
            reason = "too many indices merged"
            self.lock(labels, axes, reason)
            return Labels(shape, tuple(others), {**fixed, **{places[axis]: reason for axis in axes}})
        ids = self._joint(labels, axes)
        merged = tuple(sorted({places[axis] for axis in axes}))
        joint = Space(merged, ids.reshape([shape[axis] for axis in merged]))
        held = set(labels.fixed) | {axis for space in touching for axis in space.axes if (space.ids >= 0).all()}
        whole = len(merged) == 1 and numpy.array_equal(joint.ids, joint.ids[0] + numpy.arange(size))
        # Where a constant axis took part, what is done to the merged one may make it differ from place to place.
        if whole and held.issuperset(run) and joint.ids[0] >= 0:
            back = {axis: axis - first for axis in run}
            spaces = tuple(space.moved(back) for space in touching)
            kept = {back[axis]: reason for axis, reason in labels.fixed.items() if axis in run}
            self._merged[int(joint.ids[0])] = Labels(tuple(labels.shape[axis] for axis in run), spaces, kept)
        return self._settled(shape, [*others, joint], fixed)


def _without(labels: Labels, axis: int) -> Labels:
    """The same with one index along an axis, and without the spaces that lie along it."""
    shape = tuple(1 if place == axis else size for place, size in enumerate(labels.shape))
    spaces = tuple(space for space in labels.spaces if axis not in space.axes)
    return Labels(shape, spaces, {place: reason for place, reason in labels.fixed.items() if place != axis})


def _product(sizes: Iterable[int]) -> int:
    return functools.reduce(lambda one, other: one * other, sizes, 1)
