"""Layout: where each token's values lie in a network, and the exact map between tensors and tokens.

A layer's output unit is a row: its incoming weights, then its bias. Rows are cut into chunks; a token is one chunk, so
that none straddles two rows or two layers. Rows shorter than a chunk are padded.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from weightgen.architecture import Architecture
from weightgen.structure import axis_groups

COORDINATES = (
    "depth", "depths", "depth_share", "row", "rows", "row_share", "column", "columns", "column_share", "convolution",
    "kernel", "first", "last", "log_fan_in", "log_fan_out", "values",
)  # fmt: skip
"""What each token is told about its place; shares are in 0…1, logarithms natural, the rest counts."""


@dataclass(frozen=True)
class Layout:
    """The token matrix of one architecture.

    Args:
        positions: int64 `[tokens, chunk]`, index of each value in the flattened network, −1 for padding.
        tensor_of: int64 `[values]`, the number of the tensor each flattened value belongs to.
        coordinates: float32 `[tokens, len(COORDINATES)]`.
        shapes: name → shape of every tensor, in order.
    """

    positions: Tensor
    tensor_of: Tensor
    coordinates: Tensor
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def tokens(self) -> int:
        return len(self.positions)

    @property
    def mask(self) -> Tensor:
        """bool `[tokens, chunk]`: true where there is a value, false where there is padding."""
        return self.positions >= 0

    def gather(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Tensors `[networks, …]` to tokens `[networks, tokens, chunk]`, zeros in the padding."""
        flat = torch.cat([tensors[name].flatten(1) for name in self.shapes], dim=1)
        return flat[:, self.positions.clamp_min(0)].masked_fill(~self.mask, 0)

    def scatter(self, tokens: Tensor) -> dict[str, Tensor]:
        """The exact inverse of `gather`; differentiable."""
        values = tokens.flatten(1)[:, self._sources]
        parts = values.split([_size(shape) for shape in self.shapes.values()], dim=1)
        return {
            name: part.reshape(len(tokens), *shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    @functools.cached_property
    def _sources(self) -> Tensor:
        """For each flattened value, its index in the flattened token matrix."""
        flat = self.positions.flatten()
        sources = torch.empty(len(self.tensor_of), dtype=torch.int64)
        kept = (flat >= 0).nonzero().squeeze(1)
        sources[flat[kept]] = kept
        return sources


@functools.lru_cache(maxsize=256)
def layout_of(architecture: Architecture, chunk: int) -> Layout:
    """The layout of an architecture in chunks of `chunk` values.

    Raises:
        ArchitectureError: if the architecture is not a plain stack.
    """
    shapes = architecture.parameter_shapes()
    axis_groups(shapes)  # refuses what is not a plain stack
    weights = [name for name in shapes if name.endswith(".weight")]
    starts, offset = {}, 0
    for name, shape in shapes.items():
        starts[name] = offset
        offset += _size(shape)
    positions, coordinates = [], []
    for depth, name in enumerate(weights):
        shape = shapes[name]
        rows, width = shape[0], _size(shape[1:])
        matrix = starts[name] + torch.arange(rows * width).view(rows, width)
        bias = name.removesuffix("weight") + "bias"
        if bias in shapes:
            matrix = torch.cat([matrix, starts[bias] + torch.arange(rows)[:, None]], dim=1)
        columns = -(-matrix.shape[1] // chunk)
        padded = torch.full((rows, columns * chunk), -1, dtype=torch.int64)
        padded[:, : matrix.shape[1]] = matrix
        positions.append(padded.view(rows * columns, chunk))
        row = torch.arange(rows).repeat_interleave(columns).float()
        column = torch.arange(columns).repeat(rows).float()
        constant = torch.ones(rows * columns)
        values = {
            "depth": constant * depth,
            "depths": constant * len(weights),
            "depth_share": constant * depth / max(len(weights) - 1, 1),
            "row": row,
            "rows": constant * rows,
            "row_share": row / max(rows - 1, 1),
            "column": column,
            "columns": constant * columns,
            "column_share": column / max(columns - 1, 1),
            "convolution": constant * (len(shape) > 2),
            "kernel": constant * (shape[-1] if len(shape) > 2 else 1),
            "first": constant * (depth == 0),
            "last": constant * (depth == len(weights) - 1),
            "log_fan_in": (constant * width).log(),
            "log_fan_out": (constant * rows).log(),
            "values": (positions[-1] >= 0).sum(1).float(),
        }
        coordinates.append(torch.stack([values[name] for name in COORDINATES], dim=1))
    tensor_of = torch.repeat_interleave(
        torch.arange(len(shapes)), torch.tensor([_size(shape) for shape in shapes.values()])
    )
    return Layout(torch.cat(positions), tensor_of, torch.cat(coordinates), shapes)


def _size(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())
