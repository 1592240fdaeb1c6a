"""Embedding spaces: one matrix a space, memory-mapped, whose row is the number of the network in the catalogue.

Rows are written within the transaction that enters the network: what a killed process leaves behind belongs to no
number yet and is written over.
"""

import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy

from weightgen.errors import CorruptFileError

FOLDER = "embeddings"

CHUNK = 65_536
"""Rows that distances are computed of at once."""


def _path(folder: Path, space: str) -> Path:
    if not re.fullmatch(r"[\w.-]{1,100}", space) or space.startswith("."):
        raise CorruptFileError("the name of a space is no file name", where=folder, got=repr(space)[:80])
    return folder / FOLDER / f"{space}.float32"


def write_vectors(
    connection: sqlite3.Connection, folder: Path, space: str, numbers: Sequence[int], vectors: Sequence[numpy.ndarray]
) -> None:
    """Sets the places of networks in a space; within a transaction, which only one process has at a time."""
    if not numbers:
        return
    dimension = len(vectors[0])
    connection.execute("INSERT OR IGNORE INTO spaces VALUES (?, ?)", (space, dimension))
    path = _path(folder, space)
    path.parent.mkdir(exist_ok=True)
    path.touch()
    # Runs of following numbers are written at once.
    order = numpy.argsort(numbers)
    sorted_numbers = numpy.asarray(numbers)[order]
    matrix = numpy.stack([numpy.asarray(vectors[index], numpy.float32) for index in order])
    breaks = numpy.flatnonzero(numpy.diff(sorted_numbers) != 1) + 1
    with open(path, "r+b") as file:
        for run in numpy.split(numpy.arange(len(order)), breaks):
            file.seek((int(sorted_numbers[run[0]]) - 1) * dimension * 4)
            file.write(matrix[run].tobytes())
    connection.executemany("INSERT OR REPLACE INTO embedded VALUES (?, ?)", [(number, space) for number in numbers])


def read_matrix(folder: Path, space: str, dimension: int) -> numpy.ndarray:
    """The matrix of a space, float32 `[numbers, dimension]`; only the rows that are used are read from disk.

    Raises:
        CorruptFileError: if it is not there or not whole.
    """
    path = _path(folder, space)
    if not path.is_file():
        raise CorruptFileError("the matrix of an embedding space is missing", where=path)
    rows = path.stat().st_size // (4 * dimension)
    return numpy.memmap(path, numpy.float32, "r", shape=(rows, dimension))


def nearest(
    matrix: numpy.ndarray, rows: numpy.ndarray, to: numpy.ndarray, k: int
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The `k` rows of a matrix that are nearest to a vector, exactly.

    Args:
        matrix: float32 `[n, dimension]`.
        rows: which rows count, int64 `[m]`, ascending.
        to: float32 `[dimension]`.

    Returns:
        The rows, nearest first, ties in their order, and their Euclidean distances.
    """
    found_rows, found = numpy.empty(0, numpy.int64), numpy.empty(0, numpy.float32)
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        whole = len(chunk) and chunk[-1] - chunk[0] == len(chunk) - 1
        part = matrix[chunk[0] : chunk[-1] + 1] if whole else matrix[chunk]
        difference = part - to
        distances = numpy.einsum("nd,nd->n", difference, difference)
        found_rows, found = numpy.concatenate([found_rows, chunk]), numpy.concatenate([found, distances])
        if len(found) > k:
            keep = numpy.lexsort((found_rows, found))[:k] if len(found) < 4 * k else _smallest(found, k)
            found_rows, found = found_rows[keep], found[keep]
    order = numpy.lexsort((found_rows, found))[:k]
    return found_rows[order], numpy.sqrt(found[order])


def _smallest(values: numpy.ndarray, k: int) -> numpy.ndarray:
    """Indices of the `k` least values, and of all that equal the greatest of them."""
    return numpy.flatnonzero(values <= numpy.partition(values, k - 1)[k - 1]) if k else numpy.empty(0, numpy.int64)
