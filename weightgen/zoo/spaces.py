"""Embedding spaces: one matrix a space, memory-mapped, whose row is the number of the network in the catalogue.

Rows are written within the transaction that enters the network: what a killed process leaves behind belongs to no
number yet and is written over.
"""

import os
import re
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy

from weightgen.errors import CorruptFileError

FOLDER = "embeddings"

CHUNK = 1024
"""Rows that distances are computed of at once: few enough for what comes between to stay in the processor's cache."""


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
    connection.execute("INSERT OR IGNORE INTO spaces VALUES (?, ?, ?)", (space, dimension, min(numbers)))
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


def distances(matrix: numpy.ndarray, rows: numpy.ndarray | None, to: numpy.ndarray) -> numpy.ndarray:
    """Squared Euclidean distances to a vector, float32 `[rows]`.

    Args:
        matrix: float32 `[n, dimension]`.
        rows: which rows count, int64; all if None.
        to: float32 `[dimension]`.
    """
    number = len(matrix) if rows is None else len(rows)
    found = numpy.empty(number, numpy.float32)

    def compute(begin: int, end: int) -> None:
        for start in range(begin, end, CHUNK):
            stop = min(start + CHUNK, end)
            difference = (matrix[start:stop] if rows is None else matrix[rows[start:stop]]) - to
            numpy.einsum("nd,nd->n", difference, difference, out=found[start:stop])

    # Memory is what it waits for, and two processors fetch more of it than one.
    parts = min(4, os.cpu_count() or 1) if number > 100 * CHUNK else 1
    bounds = [number * part // parts for part in range(parts + 1)]
    with ThreadPoolExecutor(parts) as pool:
        list(pool.map(compute, bounds[:-1], bounds[1:]))
    return found


def least(values: numpy.ndarray, k: int) -> numpy.ndarray:
    """Indices of the `k` least values, least first and ties in order."""
    if k < len(values):
        # All that equal the greatest of them take part, so that ties are decided by their order.
        chosen = numpy.flatnonzero(values <= numpy.partition(values, k - 1)[k - 1]) if k else numpy.empty(0, int)
    else:
        chosen = numpy.arange(len(values))
    return chosen[numpy.argsort(values[chosen], kind="stable")][:k]
