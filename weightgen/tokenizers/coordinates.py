"""Structural coordinates: what each token is told about its place in the network."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from weightgen.tokenizers.rows import RowBlock, Shapes, row_count, size_of

COORDINATES = (
    "depth", "depths", "depth_share", "row", "rows", "row_share", "column", "columns", "column_share", "convolution",
    "kernel", "first", "last", "log_fan_in", "log_fan_out", "values",
)  # fmt: skip
"""What each token is told about its place; shares are in 0…1, logarithms natural, the rest counts."""


def coordinates_of(blocks: Sequence[RowBlock], shapes: Shapes, chunk: int) -> Tensor:
    """float32 `[tokens, len(COORDINATES)]`, the tokens in order. Trained networks read these: they must not change."""
    if not blocks:
        return torch.zeros(0, len(COORDINATES))
    return torch.cat([_of_block(*place, len(blocks), shapes, chunk) for place in enumerate(blocks)])


def _of_block(depth: int, block: RowBlock, depths: int, shapes: Shapes, chunk: int) -> Tensor:
    shape, rows, width = shapes[block.pieces[0].tensor], row_count(block, shapes), row_width(block, shapes)
    fan_in, columns = size_of(shape) // rows, -(-width // chunk)
    row = torch.arange(rows).repeat_interleave(columns).float()
    column = torch.arange(columns).repeat(rows).float()
    constant = torch.ones(rows * columns)
    values = {
        "depth": constant * depth,
        "depths": constant * depths,
        "depth_share": constant * depth / max(depths - 1, 1),
        "row": row,
        "rows": constant * rows,
        "row_share": row / max(rows - 1, 1),
        "column": column,
        "columns": constant * columns,
        "column_share": column / max(columns - 1, 1),
        "convolution": constant * (block.kind == "convolution"),
        "kernel": constant * (shape[-1] if block.kind == "convolution" else 1),
        "first": constant * (depth == 0),
        "last": constant * (depth == depths - 1),
        "log_fan_in": (constant * fan_in).log(),
        "log_fan_out": (constant * rows).log(),
        "values": (width - column * chunk).clamp_max(chunk),
    }
    return torch.stack([values[name] for name in COORDINATES], dim=1)


def row_width(block: RowBlock, shapes: Shapes) -> int:
    """How many values each row of a block has."""
    return sum(widths(block, shapes))


def widths(block: RowBlock, shapes: Shapes) -> Iterator[int]:
    """How many values of a row each piece gives."""
    rows = row_count(block, shapes)
    return (size_of(shapes[piece.tensor]) // rows for piece in block.pieces)
