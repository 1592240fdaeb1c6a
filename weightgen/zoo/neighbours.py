"""The nearest networks of a query in an embedding space, the filter applied first and the distances exact."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy

from weightgen.registry import unknown_name
from weightgen.zoo.spaces import nearest, read_matrix
from weightgen.zoo.statements import condition
from weightgen.zoo.summary import SPACE, embedding, summarise

if TYPE_CHECKING:
    from weightgen.checkpoint import Checkpoint
    from weightgen.zoo.result import Query
    from weightgen.zoo.row import Row


@dataclass(frozen=True)
class Neighbour:
    """A network and its distance."""

    row: "Row"
    distance: float


def place_of(checkpoint: "Checkpoint") -> numpy.ndarray:
    """The place of a network in the space `statistics-v1`, float32 `[128]`."""
    return embedding({name: summarise(tensor).profile for name, tensor in checkpoint.tensors()})


def neighbours(query: "Query", to: "Checkpoint | str", k: int, space: str) -> list[Neighbour]:
    """See `Query.nearest`."""
    zoo = query.zoo
    spaces = dict(zoo.catalogue.rows("SELECT name, dimension FROM spaces"))
    if space != SPACE and space not in spaces:
        raise unknown_name("embedding space", space, [SPACE, *spaces])
    row = zoo.row(to) if isinstance(to, str) else None
    query._check_fields()
    where, values = condition(query.condition)
    inside = "SELECT model FROM embedded WHERE space = ?"
    start = f"SELECT number FROM models WHERE ({where}) AND number"
    has = query._rows(f"{start} IN ({inside}) ORDER BY 1", [*values, space])
    rows = numpy.array([number - 1 for (number,) in has], dtype=numpy.int64)
    matrix = read_matrix(zoo.path, space, spaces[space]) if len(rows) else numpy.empty((0, 0), numpy.float32)
    # Networks of zoos that are older than the space are placed as they are asked for.
    lacks = query._rows(f"{start} NOT IN ({inside})", [*values, space])
    missing = [one for (one,) in lacks] if space == SPACE else []
    target = _target(query, row, to, space, spaces)
    found: list[tuple[int, float]] = []
    if len(rows):
        near, distances = nearest(matrix, rows, target, k + 1)
        found += [(int(one) + 1, float(distance)) for one, distance in zip(near, distances, strict=True)]
    for place in range(0, len(missing), 500):
        for each in query._fetched(missing[place : place + 500]):
            distance = numpy.linalg.norm(place_of(each.load()) - target)
            found.append((each.number, float(distance)))
    found = sorted(
        ((number, one) for number, one in found if not row or number != row.number), key=lambda pair: pair[::-1]
    )
    by_number = {each.number: each for each in query._fetched([number for number, _ in found[:k]])}
    return [Neighbour(by_number[number], distance) for number, distance in found[:k] if number in by_number]


def _target(query: "Query", row: "Row | None", to: "Checkpoint | str", space: str, spaces: dict) -> numpy.ndarray:
    zoo = query.zoo
    if row is None:
        return place_of(to)  # type: ignore[arg-type]
    known = "SELECT 1 FROM embedded WHERE space = ? AND model = ?"
    if zoo.catalogue.rows(known, (space, row.number)):
        return numpy.array(read_matrix(zoo.path, space, spaces[space])[row.number - 1])
    return place_of(row.load())
