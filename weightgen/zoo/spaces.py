"""Embedding spaces: one matrix a space, memory-mapped, whose row is the number of the network in the catalogue.

Rows are written within the transaction that enters the network: what a killed process leaves behind belongs to no
number yet and is written over.
"""

import os
import re
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy

from weightgen.errors import CorruptFileError, OutputError

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
    order = numpy.argsort(numbers)
    matrix = numpy.stack([numpy.asarray(vectors[index], numpy.float32) for index in order])
    try:
        _write_rows(_path(folder, space), numpy.asarray(numbers)[order] - 1, matrix)
    except OSError as error:
        where = _path(folder, space)
        raise OutputError(
            "cannot write", where=where, got=error.strerror, remedy="see that the disk is not full"
        ) from error
    connection.executemany("INSERT OR REPLACE INTO embedded VALUES (?, ?)", [(number, space) for number in numbers])


def _write_rows(path: Path, places: numpy.ndarray, matrix: numpy.ndarray) -> None:
    """Sets rows of the matrix in a file; `places`, in order, say which."""
    path.parent.mkdir(exist_ok=True)
    path.touch()
    # Runs of following rows are written at once.
    breaks = numpy.flatnonzero(numpy.diff(places) != 1) + 1
    with open(path, "r+b") as file:
        for run in numpy.split(numpy.arange(len(places)), breaks):
            file.seek(int(places[run[0]]) * matrix.shape[1] * 4)
            file.write(matrix[run].tobytes())


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


def distances(matrix: numpy.ndarray, rows: numpy.ndarray, to: numpy.ndarray) -> numpy.ndarray:
    """Squared Euclidean distances of some rows to a vector, float32 `[rows]`.

    Args:
        matrix: float32 `[n, dimension]`.
        rows: which, int64.
        to: float32 `[dimension]`.
    """
    found = numpy.empty(len(rows), numpy.float32)

    def compute(start: int, stop: int) -> None:
        difference = matrix[rows[start:stop]] - to
        numpy.einsum("nd,nd->n", difference, difference, out=found[start:stop])

    _in_chunks(compute, len(rows))
    return found


class Bounds:
    """Bounds of the squared distances of all rows to a vector, from which the nearest are found exactly.

    |x − t|² is computed as |x|² − 2xt + |t|², which writes nothing but two numbers a row and so goes as fast as memory
    is read, twice as fast as differences. It loses digits where x and t are alike: with unit roundoff u = 2⁻²⁴, sums of
    d products err by less than d·u/(1 − d·u) of the sum of their magnitudes, here at most (|x| + |t|)² (Higham,
    Accuracy and Stability of Numerical Algorithms, 3.1), and what `distances` gives by no more than that. So it lies
    within 2(d + 8)u(|x| + |t|)² of this, and rows whose least possible distance is beyond the greatest possible one of
    the k-th are not among the k nearest.

    Args:
        matrix: float32 `[n, dimension]`.
        to: float32 `[dimension]`.
    """

    def __init__(self, matrix: numpy.ndarray, to: numpy.ndarray) -> None:
        self.matrix, self.to = matrix, to
        norms, products = (numpy.empty(len(matrix), numpy.float32) for _ in range(2))

        @numpy.errstate(over="ignore", invalid="ignore")
        def compute(start: int, stop: int) -> None:
            part = matrix[start:stop]
            numpy.vecdot(part, part, out=norms[start:stop])
            numpy.vecdot(part, to, out=products[start:stop])

        _in_chunks(compute, len(matrix))
        square = numpy.vdot(to, to)
        share = numpy.float32(2 * (len(to) + 8) * 2.0**-24)
        with numpy.errstate(over="ignore", invalid="ignore"):
            squares = norms - 2 * products + square
            reach = share * (numpy.sqrt(norms) + numpy.sqrt(square)) ** 2 + SMALLEST
            self.lower, self.upper = squares - reach, squares + reach
        # What is too great for float32 says nothing.
        lost = ~numpy.isfinite(self.upper)
        self.lower[lost], self.upper[lost] = -numpy.inf, numpy.inf

    def least(self, k: int) -> tuple[numpy.ndarray, numpy.ndarray]:
        """The `k` nearest rows, nearest first and ties in order, and their squared distances."""
        if 0 < k < len(self.upper):
            rows = numpy.flatnonzero(self.lower <= numpy.partition(self.upper, k - 1)[k - 1])
        else:
            rows = numpy.arange(len(self.upper))
        squares = distances(self.matrix, rows, self.to)
        chosen = least(squares, k)
        return rows[chosen], squares[chosen]


SMALLEST = numpy.float32(1e-35)
"""More than what is lost where products are too small for float32."""


def _in_chunks(compute: Callable[[int, int], None], number: int) -> None:
    """Calls `compute` for parts of a range; with more than a few also in threads, since all wait for memory."""
    parts = min(4, os.cpu_count() or 1) if number > 100 * CHUNK else 1
    bounds = [number * part // parts for part in range(parts + 1)]

    def run(begin: int, end: int) -> None:
        for start in range(begin, end, CHUNK):
            compute(start, min(start + CHUNK, end))

    with ThreadPoolExecutor(parts) as pool:
        list(pool.map(run, bounds[:-1], bounds[1:]))


def least(values: numpy.ndarray, k: int) -> numpy.ndarray:
    """Indices of the `k` least values, least first and ties in order."""
    if k < len(values):
        # All that equal the greatest of them take part, so that ties are decided by their order.
        chosen = numpy.flatnonzero(values <= numpy.partition(values, k - 1)[k - 1]) if k else numpy.empty(0, int)
    else:
        chosen = numpy.arange(len(values))
    return chosen[numpy.argsort(values[chosen], kind="stable")][:k]
