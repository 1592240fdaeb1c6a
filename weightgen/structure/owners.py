"""What attachments imply of owners: those of the same nodes are one, and those of parts of another's belong to it."""

import hashlib
import itertools

import numpy
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from weightgen.structure.constraints import Array, Constraints

MOST_ROUNDS = 8
"""Owners of owners need a round each; networks have two or three."""


def add_implied(constraints: Constraints) -> None:
    """Adds unions between owners of the same nodes, and attachments of smaller to larger owners.

    Two norms along one residual stream each made their own owners of its blocks of channels; unless they are one,
    neither can move without the other.
    """
    done: set[tuple[int, int]] = set()
    for _ in range(MOST_ROUNDS):
        if not _round(constraints, done):
            return


def _round(constraints: Constraints, done: set[tuple[int, int]]) -> bool:
    unions, edges = constraints.unions(), constraints.attachments()
    pairs = coo_array(
        (numpy.ones(len(unions.first), dtype=bool), (unions.first, unions.second)), (constraints.nodes,) * 2
    )
    unit = connected_components(pairs, directed=False)[1]
    ends = numpy.flatnonzero(numpy.diff(edges.event)) + 1
    starts = [0, *ends.tolist(), len(edges.event)] if len(edges.event) else []
    alike: dict[str, dict[int, Array]] = {}
    for start, stop in itertools.pairwise(starts):
        nodes = unit[edges.first[start:stop]]
        order = numpy.argsort(nodes, kind="stable")
        if (numpy.diff(nodes[order]) == 0).any():
            continue
        key = hashlib.blake2b(nodes[order].tobytes(), digest_size=16).hexdigest()
        alike.setdefault(key, {})[int(edges.event[start])] = edges.second[start:stop][order]
    changed = False
    for statements in alike.values():
        for (one, first), (other, second) in itertools.combinations(statements.items(), 2):
            if (one, other) in done:
                continue
            done.add((one, other))
            changed |= _relate(constraints, unit, first, second)
    return changed


def _relate(constraints: Constraints, unit: Array, first: Array, second: Array) -> bool:
    """Relates two arrays of owners of the same nodes, place by place; whether anything was new."""
    pairs = numpy.unique(numpy.stack([first, second]), axis=1)
    sizes = len(numpy.unique(first)), len(numpy.unique(second))
    if pairs.shape[1] == sizes[0] == sizes[1]:
        if (unit[pairs[0]] == unit[pairs[1]]).all():
            return False
        constraints.union(pairs[0], pairs[1])
    elif pairs.shape[1] == sizes[0]:
        constraints.attach(pairs[0], pairs[1])
    elif pairs.shape[1] == sizes[1]:
        constraints.attach(pairs[1], pairs[0])
    else:
        return False
    return True
