"""Segments: which part of which tensor lies where in the token matrix, as a table of integers.

A segment is a matrix of values, `rows` by `units · block`, cut from one tensor and laid into the flattened token
matrix. With p a network's permutations, and p(i) = i where there is none, row r and column unit · block + within lie at

    source = source_offset + p(r) · source_row_stride + p(unit) · source_unit_stride + within
    target = target_offset + r · target_row_stride + c

and are followed by `padding` zeros in each row. Permuted rows move in blocks of `row_block`. The same struct and the
same arithmetic stand in `csrc/segments.h`.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor

from weightgen.errors import KernelError


class Segment(NamedTuple):
    """One row of the table; counts and offsets in values, not bytes.

    Args:
        tensor: number of the tensor in the list of tensors.
        rows: how many rows.
        row_block: neighbouring rows that a permutation of rows moves together.
        units: how many units of columns a row has.
        block: neighbouring values of a row that a permutation of columns moves together.
        source_offset: place of the first value in the flattened tensor of one network.
        source_row_stride: from one row to the next in the tensor.
        source_unit_stride: from one unit to the next in the tensor.
        target_offset: place of the first value in the flattened token matrix.
        target_row_stride: from one row to the next in the token matrix.
        padding: zeros after each row in the token matrix.
        row_permutation: where the permutation of the rows begins in a network's permutations; −1 for none.
        column_permutation: the same for the units of the columns.
    """

    tensor: int
    rows: int
    row_block: int
    units: int
    block: int
    source_offset: int
    source_row_stride: int
    source_unit_stride: int
    target_offset: int
    target_row_stride: int
    padding: int
    row_permutation: int = -1
    column_permutation: int = -1

    @property
    def width(self) -> int:
        """Values of a row."""
        return self.units * self.block


FIELDS = len(Segment._fields)


def table_of(segments: Sequence[Segment]) -> Tensor:
    """int64 `[segments, FIELDS]`, on the CPU."""
    return torch.tensor(segments, dtype=torch.int64).view(len(segments), FIELDS)


def segments_of(table: Tensor) -> list[Segment]:
    """The inverse of `table_of`."""
    return [Segment._make(row) for row in table.tolist()]


def check_table(table: Tensor, sizes: Sequence[int], values: int) -> None:
    """Refuses a table that points outside its tensors or outside the token matrix.

    Args:
        table: int64 `[segments, FIELDS]`.
        sizes: values of each tensor of one network.
        values: tokens times chunk.

    Raises:
        KernelError: with the first segment that does not fit.
    """
    if table.dtype != torch.int64 or table.dim() != 2 or table.shape[1] != FIELDS or table.device.type != "cpu":
        raise KernelError(
            "a table of segments of the wrong kind",
            got=f"{table.dtype} {tuple(table.shape)} on {table.device}",
            expected=f"torch.int64 [segments, {FIELDS}] on cpu",
        )
    column = _columns(table)
    tensors = numpy.asarray([*sizes, -1], dtype=numpy.int64)
    known = (column.tensor >= 0) & (column.tensor < len(sizes))
    size = tensors[numpy.where(known, column.tensor, len(sizes))]
    lengths = numpy.minimum.reduce([column.rows, column.row_block, column.units, column.block])
    offsets = numpy.minimum.reduce(
        [column.source_offset, column.source_row_stride, column.source_unit_stride, column.target_offset,
         column.target_row_stride, column.padding]
    )  # fmt: skip
    last_source = (
        column.source_offset
        + (column.rows - 1) * column.source_row_stride
        + (column.units - 1) * column.source_unit_stride
        + column.block
        - 1
    )
    last_target = (
        column.target_offset
        + (column.rows - 1) * column.target_row_stride
        + column.units * column.block
        + column.padding
        - 1
    )
    fits = known & (lengths > 0) & (offsets >= 0) & (column.rows % column.row_block.clip(1) == 0)
    fits &= (last_source < size) & (last_target < values)
    if not fits.all():
        number = int(numpy.argmin(fits))
        raise KernelError(
            "a segment that lies outside its tensor or the token matrix",
            where=f"segment {number}",
            got=Segment._make(table[number].tolist()),
            expected=f"tensors of {list(sizes)} values and a token matrix of {values}",
        )


def permutations_of(segments: Iterable[Segment]) -> set[tuple[int, int]]:
    """(first, length) of every permutation that a table names."""
    used = set()
    for segment in segments:
        if segment.row_permutation >= 0:
            used.add((segment.row_permutation, segment.rows // segment.row_block))
        if segment.column_permutation >= 0:
            used.add((segment.column_permutation, segment.units))
    return used


def check_permutations(permutations: Tensor | None, table: Tensor, networks: int, device: torch.device) -> None:
    """Refuses what is not one permutation for each place that the table names.

    Raises:
        KernelError: for a missing, short, repeating or foreign index.
    """
    moved = (table[:, -2:] >= 0).any(1)
    if not moved.any():
        return
    if permutations is None:
        raise KernelError("the table names permutations", got="none", remedy="pass them, [networks, units]")
    if permutations.dtype != torch.int64 or permutations.dim() != 2 or len(permutations) != networks:
        raise KernelError(
            "permutations of the wrong kind",
            got=f"{permutations.dtype} {tuple(permutations.shape)}",
            expected=f"torch.int64 [{networks}, units]",
        )
    if permutations.device != device:
        raise KernelError(
            "permutations and values on different devices",
            got=permutations.device,
            expected=device,
        )
    for first, length in sorted(permutations_of(segments_of(table[moved]))):
        part = permutations[:, first : first + length]
        fits = part.shape[1] == length and bool(((part >= 0) & (part < length)).all())
        if fits:
            seen = torch.zeros(part.shape, dtype=torch.bool, device=part.device)
            fits = bool(seen.scatter_(1, part, True).all())
        if not fits:
            raise KernelError(
                "not a permutation",
                where=f"units {first} to {first + length - 1} of the permutations",
                expected=f"every number from 0 to {length - 1} once, for every network",
            )


def _columns(table: Tensor) -> Any:
    """A Segment whose every field is an array of all segments."""
    return Segment(*table.numpy().T)


def covers(table: Tensor, sizes: Sequence[int]) -> list[bool]:
    """Whether the segments of each tensor take up all of its values."""
    covered = numpy.zeros(len(sizes), dtype=numpy.int64)
    column = _columns(table)
    numpy.add.at(covered, column.tensor, column.rows * column.units * column.block)
    return (covered == numpy.asarray(sizes, dtype=numpy.int64)).tolist()


def fills(table: Tensor, values: int) -> bool:
    """Whether the segments with their padding take up the whole token matrix."""
    column = _columns(table)
    return int((column.rows * (column.units * column.block + column.padding)).sum()) == values
