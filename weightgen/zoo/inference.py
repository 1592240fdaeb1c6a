"""Lineage found from weights: which networks are fine-tuned from which, each guess with a confidence.

Fine-tuning moves weights by little and leaves hidden units in their places, while networks that were trained apart are
as far from each other as their weights are long. Let d(a, b) be the distance over the tensors that a and b share by
name and shape, and q(a, b) = d(a, b) / √(|a|² + |b|²): about 1 for networks trained apart, less for relatives. Those
are pairs with q below `NEAR`, or below `FAR` and much nearer to each other than to most others; whoever is joined by
relatives is a family.

Distances do not show who came first: children that were tuned on the same data go the same way and are nearer to each
other than to their parent. But steps in new directions lengthen weights, so the root of a family is its network with
the shortest weights, over the tensors that all of it share; strong weight decay can undo that. A network hangs on the
root, or on one that is nearer to the root and very much nearer to it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy

from weightgen.zoo.lineage import INFERRED, Edge

if TYPE_CHECKING:
    from weightgen.zoo.row import Row
    from weightgen.zoo.zoo import Zoo

NEAR, FAR, GAP = 0.35, 0.8, 0.6
"""Bounds of q, and of a distance over the median distance to all others."""

HANG = 0.2
"""A network hangs on a relative rather than on the root if it is nearer to it by this factor."""

SHARED = 0.5
"""Share of the values that two networks must have in common to be compared."""

MAXIMUM = 4000
"""Networks of the same tensor names that are compared with one another; more take too much memory."""


@dataclass(frozen=True)
class _Distances:
    """Between all networks of a group, `[n, n]`; infinite where they share too little.

    Args:
        squares: squared distances.
        lengths: |a|² + |b|² over what is shared.
    """

    squares: numpy.ndarray
    lengths: numpy.ndarray


def infer_lineage(zoo: "Zoo", expression: str = "", save: bool = False) -> list[Edge]:
    """Guesses edges among the networks for which `expression` holds, in the order of children.

    Args:
        save: keep them in the catalogue in place of earlier guesses about the same children; declared edges are never
            touched, and pairs that have one are not guessed about.

    Raises:
        OutputError: if they are to be kept and the zoo cannot be written.
    """
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in zoo.query(expression):
        groups.setdefault(tuple(sorted(row.load().shapes)), []).append(row)
    declared = set(zoo.catalogue.rows("SELECT child, parent FROM lineage WHERE source != ?", (INFERRED,)))
    edges = []
    for rows in groups.values():
        if 2 <= len(rows) <= MAXIMUM:
            edges += _guesses(rows)
    known = {frozenset(pair) for pair in declared}
    edges = sorted(
        (edge for edge in edges if frozenset((edge.child, edge.parent)) not in known),
        key=lambda edge: (edge.child, edge.parent),
    )
    if save:
        ids = [(row.id, INFERRED) for rows in groups.values() for row in rows]
        with zoo.catalogue.transaction() as connection:
            connection.executemany("DELETE FROM lineage WHERE child = ? AND source = ?", ids)
            values = [(edge.child, edge.parent, edge.confidence, edge.source) for edge in edges]
            connection.executemany("INSERT OR REPLACE INTO lineage VALUES (?, ?, ?, ?)", values)
    return edges


def _guesses(rows: list["Row"]) -> list[Edge]:
    from scipy.sparse.csgraph import connected_components

    found = _distances(rows)
    with numpy.errstate(invalid="ignore", divide="ignore"):
        ratio = numpy.sqrt(found.squares / found.lengths)  # q, [n, n]
    ratio[~numpy.isfinite(ratio)] = numpy.inf
    numpy.fill_diagonal(ratio, numpy.inf)
    # The median over all others is that of strangers, unless nearly all are of one family.
    others = numpy.where(numpy.isinf(ratio), numpy.nan, ratio)
    enough = numpy.isfinite(others).sum(1) >= 4
    median = numpy.full(len(rows), numpy.inf)
    if enough.any():
        median[enough] = numpy.nanmedian(others[enough], axis=1)
    with numpy.errstate(invalid="ignore"):
        gap = ratio / numpy.minimum(median[:, None], median[None, :])
    gap[~numpy.isfinite(gap)] = 1.0
    related = (ratio < NEAR) | ((ratio < FAR) & (gap < GAP))
    strength = numpy.clip(1 - numpy.minimum(ratio, gap), 0, 1)
    number, labels = connected_components(related, directed=False)
    edges: list[Edge] = []
    for label in range(number):
        family = numpy.flatnonzero(labels == label)
        if len(family) < 2:
            continue
        inside = numpy.where(numpy.isinf(ratio), 1.0, ratio)[numpy.ix_(family, family)]
        numpy.fill_diagonal(inside, 0)
        root = int(numpy.argmin(_lengths([rows[one] for one in family])))
        edges += [
            Edge(
                rows[family[child]].id, rows[family[parent]].id,
                round(float(strength[family[child], family[parent]]), 4), INFERRED,
            )
            for child, parent in _hung(inside, root)
        ]  # fmt: skip
    return edges


def _lengths(rows: list["Row"]) -> numpy.ndarray:
    """Squared lengths of the weights of a family, over the floating-point tensors that all of it have in one shape."""
    checkpoints = [row.load() for row in rows]
    shared = [
        name
        for name, (kind, _) in checkpoints[0].shapes.items()
        if "float" in kind and len({one.shapes[name][1] for one in checkpoints}) == 1
    ]
    return numpy.array([sum(float(one.read(name).double().square().sum()) for name in shared) for one in checkpoints])


def _hung(distances: numpy.ndarray, root: int) -> list[tuple[int, int]]:
    """(child, parent) for all but the root; who is nearer to the root can only be the parent of those farther away."""
    order = numpy.argsort(distances[root], kind="stable").tolist()
    pairs = []
    for place, child in enumerate(order):
        if child == root:
            continue
        before = [one for one in order[:place] if one != root]
        nearest = min(before, key=lambda one: distances[child, one], default=root)
        hangs = distances[child, nearest] < HANG * distances[child, root]
        pairs.append((child, nearest if hangs else root))
    return pairs


def _distances(rows: list["Row"]) -> _Distances:
    """Distances over all tensors that networks share; a tensor of all networks is in memory at a time."""
    number = len(rows)
    squares, lengths, shared = (numpy.zeros((number, number)) for _ in range(3))
    checkpoints = [row.load() for row in rows]
    sizes = numpy.zeros(number)
    for name in checkpoints[0].shapes:
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for index, checkpoint in enumerate(checkpoints):
            kind, shape = checkpoint.shapes[name]
            if "float" in kind:
                by_shape.setdefault(shape, []).append(index)
        for indices in by_shape.values():
            values = numpy.stack([checkpoints[one].read(name).float().numpy().reshape(-1) for one in indices])
            values = numpy.nan_to_num(values, posinf=0, neginf=0)
            sizes[indices] += values.shape[1]
            place = numpy.ix_(indices, indices)
            shared[place] += values.shape[1]
            norms = numpy.square(values, dtype=numpy.float64).sum(1)
            # What all have in common, such as ones in norms, says nothing; without it the product is exact enough.
            centred = values - values.mean(0)
            inner = (centred @ centred.T).astype(numpy.float64)
            own = numpy.diag(inner)
            squares[place] += numpy.maximum(own[:, None] + own[None, :] - 2 * inner, 0)
            lengths[place] += norms[:, None] + norms[None, :]
    alike = shared >= SHARED * numpy.maximum(sizes[:, None], sizes[None, :])
    return _Distances(numpy.where(alike, squares, numpy.inf), lengths)
