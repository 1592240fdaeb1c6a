"""Constraints: what tracing learns about which indices of which axes must move together.

Every index along an axis of a tensor is a *node*, an integer ≥ 0. Three things are said of nodes:

- *union*: two nodes are one unit, wherever one goes the other goes (x + y, or x contracted with W);
- *attachment*: many nodes belong to one (the inner axis of a head to its head, the places of a flattened feature map
  to their channel). When the owner moves, those that belong to it move along, each to the place that corresponds to
  its own; and a node moves by itself only among those that belong to the same owners;
- *mark*: a node differs from others in a certain way (it lies in a slice, or at a fixed place), and may only change
  places with nodes of the same marks.

A negative number is no node but a *constant*: at this index the values are the same as at every other index with the
same number (zero padding, say), so that nodes that meet it are not bound by it.
"""

import hashlib
from dataclasses import dataclass

import numpy

Array = numpy.ndarray

FREE = 0
"""The number of the reason of a node that nothing was said against."""


def mix(values: Array) -> Array:
    """A 64-bit hash of each 64-bit value (the finaliser of splitmix64, https://doi.org/10.1145/2714064.2660195)."""
    values = values.astype(numpy.uint64) + numpy.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    return values ^ (values >> numpy.uint64(31))


def paired(first: Array, second: Array) -> Array:
    """A 64-bit hash of each pair; the two are not treated alike, so that (1, 2) and (2, 1) differ."""
    return mix(mix(first) + second.astype(numpy.uint64) * numpy.uint64(0xD6E8FEB86659FD93))


@dataclass(frozen=True)
class Edges:
    """Unions or attachments in columns, one entry an edge.

    Args:
        first: a node; of an attachment the one that belongs.
        second: the other node; of an attachment the owner.
        event: the number of the statement that the edge is part of.
        place: of an attachment, which of its owner's nodes it is.
    """

    first: Array
    second: Array
    event: Array
    place: Array


class Constraints:
    """Collects nodes and what is said of them, array by array; the arrays are put together when it is asked for."""

    def __init__(self) -> None:
        self.nodes = 0
        self.reasons: list[str] = [""]
        self._families: list[int] = []
        self._unions: list[tuple[Array, Array, int]] = []
        self._attachments: list[tuple[Array, Array, Array, int]] = []
        self._marks: list[tuple[Array, Array]] = []
        self._fixed: list[tuple[Array, int]] = []
        self._blocks: dict[tuple[tuple[int, ...], str], Array] = {}
        self._events = 0
        self._constants = 0

    def fresh(self, shape: tuple[int, ...]) -> Array:
        """New nodes, a family of their own: int64 of this shape."""
        count = int(numpy.prod(shape))
        ids = numpy.arange(self.nodes, self.nodes + count).reshape(shape)
        self.nodes += count
        self._families.append(count)
        return ids

    def constant(self) -> int:
        """A new number for indices at which all values are the same."""
        self._constants -= 1
        return self._constants

    def union(self, first: Array, second: Array) -> Array:
        """Says that nodes of the same place are one unit; gives for each place a node if there is one.

        Args:
            first, second: int64 of one shape, none twice within either.
        """
        if first is second or numpy.array_equal(first, second):
            return first
        one, other = first.ravel(), second.ravel()
        event = self._event()
        both = (one >= 0) & (other >= 0) & (one != other)
        if both.any():
            self._unions.append((one[both], other[both], event))
        for nodes, constants in ((one, other), (other, one)):
            met = (nodes >= 0) & (constants < 0)
            if met.any():
                self._mark(nodes[met], constants[met], event)
        merged = numpy.where(one >= 0, one, other)
        neither = merged < 0
        if (one < 0).any() and len(numpy.unique(merged[~neither])) < (~neither).sum():
            # What stands in the gaps of one stands elsewhere in it too, and a node cannot be in two places.
            merged = self.union(self.union(self.fresh(one.shape), one), other)
        if neither.any():
            merged[neither] = self.constants(one[neither], other[neither])
        return merged.reshape(first.shape)

    def constants(self, *parts: Array) -> Array:
        """New constants, one for each combination of what stands at one place of the parts, each `[places]`."""
        found, inverse = numpy.unique(numpy.stack(parts), axis=1, return_inverse=True)
        codes = numpy.array([self.constant() for _ in range(found.shape[1])], dtype=numpy.int64)
        return codes[inverse.ravel()]

    def attach(self, nodes: Array, owners: Array) -> None:
        """Says that each node belongs to the owner of its place; arrays of one shape."""
        nodes, owners = nodes.ravel(), owners.ravel()
        met = (nodes >= 0) & (owners < 0)
        if met.any():
            self.mark(nodes[met], owners[met])
        real = (nodes >= 0) & (owners >= 0)
        nodes, owners = nodes[real], owners[real]
        if len(nodes) == 0:
            return
        # The place of a node among those of its owner, in the order in which they stand.
        order = numpy.argsort(owners, kind="stable")
        starts = numpy.r_[0, numpy.flatnonzero(numpy.diff(owners[order])) + 1]
        sizes = numpy.diff(numpy.r_[starts, len(owners)])
        place = numpy.empty(len(owners), dtype=numpy.int64)
        place[order] = numpy.arange(len(owners)) - numpy.repeat(starts, sizes)
        self._attachments.append((nodes, owners, place, self._event()))

    def blocks(self, ids: Array, kept: tuple[int, ...], owners: Array | None = None) -> Array:
        """The owners of the blocks of `ids`: one for each index of the kept dimensions.

        Args:
            ids: int64 with two dimensions or more.
            kept: some of its dimensions; what lies along the others is one block.
            owners: int64 of the kept dimensions' shape, which own these blocks; None for those known already or new.
        """
        rest = tuple(axis for axis in range(ids.ndim) if axis not in kept)
        shape = tuple(ids.shape[axis] for axis in kept)
        rows = ids.transpose(*kept, *rest).reshape(*shape, -1)
        key = (shape, hashlib.blake2b(numpy.sort(rows, axis=-1).tobytes(), digest_size=16).hexdigest())
        known = self._blocks.get(key)
        if known is None:
            if owners is None:
                owners = self._owners(rows)
            self.attach(rows, owners[..., None] + numpy.zeros_like(rows))
        else:
            owners = known if owners is None else self.union(known, owners)
        self._blocks[key] = owners
        return owners

    def mark(self, nodes: Array, keys: Array | None = None) -> None:
        """Says that nodes with different keys differ, and all of them from the nodes that are not named here."""
        nodes = nodes.ravel()
        keys = numpy.zeros(len(nodes), numpy.int64) if keys is None else keys.ravel()
        real = nodes >= 0
        self._mark(nodes[real], keys[real], self._event())

    def fix(self, nodes: Array, reason: str, keys: Array | None = None) -> None:
        """Forbids nodes to leave their place, or with keys to change it for one with another key."""
        nodes = nodes.ravel()
        self.mark(nodes, nodes if keys is None else keys)
        if reason not in self.reasons:
            self.reasons.append(reason)
        self._fixed.append((nodes[nodes >= 0], self.reasons.index(reason)))

    @property
    def families(self) -> Array:
        """int64 `[nodes]`, the family each node was made in."""
        return numpy.repeat(numpy.arange(len(self._families)), self._families)

    def unions(self) -> Edges:
        """All unions."""
        firsts, seconds, events = zip(*self._unions, strict=True) if self._unions else ((), (), ())
        numbers = numpy.repeat(_integers(events), _integers(tuple(map(len, firsts))))
        return Edges(_joined(firsts), _joined(seconds), numbers, numpy.zeros_like(numbers))

    def attachments(self) -> Edges:
        """All attachments; those of one statement stand together."""
        nodes, owners, places, events = zip(*self._attachments, strict=True) if self._attachments else ((),) * 4
        numbers = numpy.repeat(_integers(events), _integers(tuple(map(len, nodes))))
        return Edges(_joined(nodes), _joined(owners), numbers, _joined(places))

    def colours(self) -> Array:
        """uint64 `[nodes]`: what distinguishes a node by itself, its family and marks."""
        colours = mix(self.families)
        for nodes, hashes in self._marks:
            numpy.add.at(colours, nodes, hashes)
        return colours

    def fixed(self) -> Array:
        """int64 `[nodes]`: the number of the first reason that was given to fix a node, else `FREE`."""
        reasons = numpy.zeros(self.nodes, dtype=numpy.int64)
        for nodes, reason in reversed(self._fixed):
            reasons[nodes] = reason
        return reasons

    def _owners(self, rows: Array) -> Array:
        """New owners of rows of nodes; a row of nothing but constants has a constant for its owner."""
        empty = (rows < 0).all(axis=-1)
        owners = self.fresh(rows.shape[:-1])
        if (rows < 0).any():
            patterns = numpy.where(rows < 0, rows, 0)
            found, inverse = numpy.unique(patterns.reshape(-1, rows.shape[-1]), axis=0, return_inverse=True)
            inverse = inverse.reshape(empty.shape)
            self.mark(owners, inverse)
            codes = numpy.array([self.constant() for _ in range(len(found))])
            owners = numpy.where(empty, codes[inverse], owners)
        return owners

    def _mark(self, nodes: Array, keys: Array, event: int) -> None:
        self._marks.append((nodes, paired(numpy.array([event]), keys)))

    def _event(self) -> int:
        self._events += 1
        return self._events


def _joined(arrays: tuple[Array, ...]) -> Array:
    return numpy.concatenate(arrays) if arrays else numpy.zeros(0, dtype=numpy.int64)


def _integers(values: tuple[int, ...]) -> Array:
    return numpy.array(values, dtype=numpy.int64)
