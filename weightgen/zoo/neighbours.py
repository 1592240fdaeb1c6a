"""The nearest networks of a query in an embedding space, the filter applied first and the distances exact."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy

from weightgen.registry import unknown_name
from weightgen.zoo.spaces import distances, least, read_matrix
from weightgen.zoo.statements import condition
from weightgen.zoo.summary import SPACE, embedding, summarise

if TYPE_CHECKING:
    from weightgen.checkpoint import Checkpoint
    from weightgen.zoo.result import Query
    from weightgen.zoo.row import Row


FEW = 20_000
"""A filter that leaves no more than this is applied before the distances are computed."""


_STORED = "EXISTS (SELECT 1 FROM embedded WHERE space = ? AND model = models.number)"


@dataclass(frozen=True)
class Neighbour:
    """A network and its distance."""

    row: "Row"
    distance: float


def place_of(checkpoint: "Checkpoint") -> numpy.ndarray:
    """The place of a network in the space `statistics-v1`, float32 `[128]`."""
    return embedding({name: summarise(checkpoint.read(name)).profile for name in checkpoint.shapes})


def neighbours(query: "Query", to: "Checkpoint | str", k: int, space: str) -> list[Neighbour]:
    """See `Query.nearest`."""
    zoo = query.zoo
    spaces = dict(zoo.catalogue.rows("SELECT name, dimension FROM spaces"))
    if space != SPACE and space not in spaces:
        raise unknown_name("embedding space", space, [SPACE, *spaces])
    row = zoo.row(to) if isinstance(to, str) else None
    query._check_fields()
    target = _target(query, row, to, space, spaces)
    found = _placed(query, target, k + 1, space, spaces[space]) if space in spaces else []
    found += _unplaced(query, target) if space == SPACE else []
    found = sorted((pair for pair in found if not row or pair[0] != row.number), key=lambda pair: pair[::-1])[:k]
    rows = {each.number: each for each in query._fetched([number for number, _ in found])}
    return [Neighbour(rows[number], distance) for number, distance in found if number in rows]


def _placed(query: "Query", target: numpy.ndarray, k: int, space: str, dimension: int) -> list[tuple[int, float]]:
    """Numbers and distances of the nearest among those whose place is stored."""
    where, values = condition(query.condition, query._is_rare)
    chosen = f"SELECT number FROM models WHERE ({where}) AND {_STORED}"
    few = query._rows(f"{chosen} LIMIT ?", [*values, space, FEW + 1])
    matrix = read_matrix(query.zoo.path, space, dimension)
    if len(few) <= FEW:
        rows = numpy.sort(numpy.array([number - 1 for (number,) in few], dtype=numpy.int64))
        squares = distances(matrix, rows, target)
        near = least(squares, k)
        return [(int(rows[one]) + 1, float(squares[one]) ** 0.5) for one in near]
    # To list half a million networks takes longer than to place them all: the nearest are asked whether they count.
    squares = distances(matrix, None, target)
    wanted = 4 * k
    while True:
        near = least(squares, wanted)
        count: set[int] = set()
        for start in range(0, len(near), 500):
            numbers = [int(one) + 1 for one in near[start : start + 500]]
            marks = ", ".join("?" * len(numbers))
            count |= {one for (one,) in query._rows(f"{chosen} AND number IN ({marks})", [*values, space, *numbers])}
        if len(count) >= k or wanted >= len(squares):
            return [(int(one) + 1, float(squares[one]) ** 0.5) for one in near if int(one) + 1 in count][:k]
        wanted *= 8


def _unplaced(query: "Query", target: numpy.ndarray) -> list[tuple[int, float]]:
    """Those of zoos that are older than the space; they are placed as they are asked for."""
    where, values = condition(query.condition, query._is_rare)
    (total,), (stored,) = query._rows("SELECT count(*) FROM models UNION ALL SELECT count(*) FROM embedded", [])
    if total == stored:
        return []
    chosen = f"SELECT number FROM models WHERE ({where}) AND NOT {_STORED}"
    missing = [number for (number,) in query._rows(chosen, [*values, SPACE])]
    return [
        (each.number, float(numpy.linalg.norm(place_of(each.load()) - target)))
        for start in range(0, len(missing), 500)
        for each in query._fetched(missing[start : start + 500])
    ]


def _target(query: "Query", row: "Row | None", to: "Checkpoint | str", space: str, spaces: dict) -> numpy.ndarray:
    zoo = query.zoo
    if row is None:
        return place_of(to)  # type: ignore[arg-type]
    known = "SELECT 1 FROM embedded WHERE space = ? AND model = ?"
    if zoo.catalogue.rows(known, (space, row.number)):
        return numpy.array(read_matrix(zoo.path, space, spaces[space])[row.number - 1])
    return place_of(row.load())
