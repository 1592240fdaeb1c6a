"""The nearest networks of a query in an embedding space, the filter applied first and the distances exact."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy

from weightgen.registry import unknown_name
from weightgen.zoo.spaces import Bounds, distances, least, read_matrix
from weightgen.zoo.statements import condition
from weightgen.zoo.summary import SPACE, embedding, summarise

if TYPE_CHECKING:
    from weightgen.checkpoint import Checkpoint
    from weightgen.zoo.result import Query
    from weightgen.zoo.row import Row


WIDER = (4, 64, 1024)
"""How many times more of the nearest are asked whether the filter holds for them, before all networks are."""

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
    first = dict(zoo.catalogue.rows("SELECT name, first FROM spaces"))
    if space != SPACE and space not in spaces:
        raise unknown_name("embedding space", space, [SPACE, *spaces])
    row = zoo.row(to) if isinstance(to, str) else None
    query._check_fields()
    target = _target(query, row, to, space, spaces)
    found = _placed(query, target, k + 1, space, spaces[space]) if space in spaces else []
    found += _unplaced(query, target, first.get(space)) if space == SPACE else []
    found = sorted((pair for pair in found if not row or pair[0] != row.number), key=lambda pair: pair[::-1])[:k]
    rows = {each.number: each for each in query._fetched([number for number, _ in found])}
    return [Neighbour(rows[number], distance) for number, distance in found if number in rows]


def _placed(query: "Query", target: numpy.ndarray, k: int, space: str, dimension: int) -> list[tuple[int, float]]:
    """Numbers and distances of the nearest among those whose place is stored."""
    where, values = condition(query.condition, query._is_rare)
    chosen = f"SELECT number FROM models WHERE ({where}) AND {_STORED}"
    matrix = read_matrix(query.zoo.path, space, dimension)
    if not query._are_rare():
        # To list half a million networks takes longer than to place them all: the nearest are asked if they count.
        bounds = Bounds(matrix, target)
        for wanted in (factor * k for factor in WIDER):
            near, squares = bounds.least(wanted)
            count: set[int] = set()
            for start in range(0, len(near), 500):
                numbers = [int(one) + 1 for one in near[start : start + 500]]
                marks = ", ".join("?" * len(numbers))
                asked = query._rows(f"{chosen} AND number IN ({marks})", [*values, space, *numbers])
                count |= {number for (number,) in asked}
            if len(count) >= k or wanted >= len(matrix):
                pairs = zip((near + 1).tolist(), squares.tolist(), strict=True)
                return [(number, square**0.5) for number, square in pairs if number in count][:k]
    listed = [number - 1 for (number,) in query._rows(chosen, [*values, space])]
    rows = numpy.sort(numpy.array(listed, dtype=numpy.int64))
    squares = distances(matrix, rows, target)
    return [(int(rows[one]) + 1, float(squares[one]) ** 0.5) for one in least(squares, k)]


def _unplaced(query: "Query", target: numpy.ndarray, first: int | None) -> list[tuple[int, float]]:
    """Those that are older than the space, before the `first` that has a place; they are placed when asked for."""
    where, values = condition(query.condition, query._is_rare)
    chosen = f"SELECT number FROM models WHERE {'1' if first is None else 'number < ?'} AND ({where}) AND NOT {_STORED}"
    missing = query._rows(chosen, [*([] if first is None else [first]), *values, SPACE])
    numbers = [number for (number,) in missing]
    return [
        (each.number, float(numpy.linalg.norm(place_of(each.load()) - target)))
        for start in range(0, len(numbers), 500)
        for each in query._fetched(numbers[start : start + 500])
    ]


def _target(query: "Query", row: "Row | None", to: "Checkpoint | str", space: str, spaces: dict) -> numpy.ndarray:
    zoo = query.zoo
    if row is None:
        return place_of(to)  # type: ignore[arg-type]
    known = "SELECT 1 FROM embedded WHERE space = ? AND model = ?"
    if zoo.catalogue.rows(known, (space, row.number)):
        return numpy.array(read_matrix(zoo.path, space, spaces[space])[row.number - 1])
    return place_of(row.load())
