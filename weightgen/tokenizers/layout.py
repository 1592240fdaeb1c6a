"""Layout: where each token's values lie in a network, and the exact map between tensors and tokens.

The values of an output unit are a row (`rows.py`). Rows are cut into chunks; a token is one chunk, so that none
straddles two rows or two layers. Rows that do not fill their last chunk are padded with zeros. A layout is a short
table, a few numbers for each tensor; where single values lie follows from it.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from weightgen.architecture import Architecture
from weightgen.errors import ArchitectureError, CorruptFileError
from weightgen.kernels import Segment, gather_tokens, scatter_tokens, segments_of, table_of
from weightgen.kernels.ops import FLOATING
from weightgen.tokenizers.coordinates import COORDINATES, coordinates_of, row_width, widths
from weightgen.tokenizers.rows import KINDS, Piece, RowBlock, Shapes, row_blocks, row_count, size_of

__all__ = ["COORDINATES", "KINDS", "Layout", "layout_of"]

VERSION = 1


@dataclass(frozen=True)
class Layout:
    """The token matrix of one architecture.

    Args:
        chunk: values a token.
        shapes: name → shape of every tensor that is tokenized, in order.
        copied: name → shape of those that are kept beside the tokens: counters, and whatever else is not floating.
        blocks: the rows of all tensors, in the order of their tokens.
    """

    chunk: int
    shapes: Shapes
    copied: Shapes
    blocks: tuple[RowBlock, ...]

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], chunk: int) -> "Layout":
        """The layout of the tensors of one network, which may be on the meta device.

        Raises:
            ArchitectureError: if a token would hold less than one value.
        """
        if chunk < 1:
            raise ArchitectureError("a token holds at least one value", where="chunk", got=chunk)
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items() if tensor.dtype in FLOATING}
        copied = {name: tuple(tensor.shape) for name, tensor in tensors.items() if name not in shapes}
        return cls(chunk, shapes, copied, row_blocks(shapes))

    @functools.cached_property
    def table(self) -> Tensor:
        """The segments of all tensors, int64 `[segments, FIELDS]`."""
        names = {name: number for number, name in enumerate(self.shapes)}
        segments, start = [], 0
        for block in self.blocks:
            rows, stride = row_count(block, self.shapes), self._columns(block) * self.chunk
            begin, padding = start, stride - row_width(block, self.shapes)
            for piece, width in zip(block.pieces, widths(block, self.shapes), strict=True):
                shape = self.shapes[piece.tensor]
                # Cut along another axis than the first, a row is one stretch for each index of the axes before it.
                units = 1 if piece.axis is None else size_of(shape[: piece.axis])
                length = width // units
                last = piece is block.pieces[-1]
                segments.append(
                    Segment(
                        names[piece.tensor], rows, 1, units, length, 0, length, rows * length,
                        begin, stride, padding if last else 0,
                    )
                )  # fmt: skip
                begin += width
            start += rows * stride
        return table_of(segments)

    @functools.cached_property
    def tokens(self) -> int:
        """How many tokens a network has."""
        return sum(row_count(block, self.shapes) * self._columns(block) for block in self.blocks)

    @functools.cached_property
    def coordinates(self) -> Tensor:
        """float32 `[tokens, len(COORDINATES)]`."""
        return coordinates_of(self.blocks, self.shapes, self.chunk)

    @functools.cached_property
    def kinds(self) -> Tensor:
        """int64 `[tokens]`, for each token the place of its kind in `KINDS`."""
        counts = [row_count(block, self.shapes) * self._columns(block) for block in self.blocks]
        kinds = torch.tensor([KINDS.index(block.kind) for block in self.blocks], dtype=torch.int64)
        return kinds.repeat_interleave(torch.tensor(counts, dtype=torch.int64))

    @functools.cached_property
    def positions(self) -> Tensor:
        """int64 `[tokens, chunk]`, index of each value in the flattened network, −1 for padding."""
        sizes = torch.tensor([0, *(size_of(shape) for shape in self.shapes.values())])
        starts = sizes.cumsum(0)
        positions = torch.full((self.tokens * self.chunk,), -1, dtype=torch.int64)
        for segment in segments_of(self.table):
            row, column = torch.arange(segment.rows)[:, None], torch.arange(segment.width)
            source = (
                segment.source_offset
                + row * segment.source_row_stride
                + column // segment.block * segment.source_unit_stride
                + column % segment.block
            )
            target = segment.target_offset + row * segment.target_row_stride + column
            positions[target.flatten()] = starts[segment.tensor] + source.flatten()
        return positions.view(self.tokens, self.chunk)

    @functools.cached_property
    def tensor_of(self) -> Tensor:
        """int64 `[values]`, the number of the tensor each flattened value belongs to."""
        sizes = torch.tensor([size_of(shape) for shape in self.shapes.values()], dtype=torch.int64)
        return torch.repeat_interleave(torch.arange(len(sizes)), sizes)

    @functools.cached_property
    def mask(self) -> Tensor:
        """bool `[tokens, chunk]`: true where there is a value, false where there is padding."""
        return self.coordinates[:, COORDINATES.index("values"), None] > torch.arange(self.chunk)

    def gather(
        self,
        tensors: Mapping[str, Tensor],
        *,
        dtype: torch.dtype | None = None,
        reference: Tensor | None = None,
        scales: Tensor | None = None,
    ) -> Tensor:
        """Tensors `[networks, …]` to tokens `[networks, tokens, chunk]`, zeros in the padding; differentiable.

        Args:
            tensors: those of `shapes`, each with an axis of networks in front.
            dtype: of the tokens; without it the least that holds the values of every tensor exactly.
            reference: `[tokens, chunk]`, taken from the values.
            scales: `[tensors]`, what the values of each tensor are then divided by.

        Raises:
            ArchitectureError: for tensors that are missing or of other shapes.
        """
        chosen = [self._checked(name, shape, tensors) for name, shape in self.shapes.items()]
        if not chosen:
            networks = len(next(iter(tensors.values()), ()))
            return torch.zeros(networks, 0, self.chunk, dtype=dtype)
        dtype = dtype or functools.reduce(torch.promote_types, (tensor.dtype for tensor in chosen))
        return gather_tokens(
            chosen, self.table, self.tokens, self.chunk, dtype, None, reference, self._by_segment(scales)
        )

    def scatter(
        self,
        tokens: Tensor,
        *,
        dtypes: Mapping[str, torch.dtype] | None = None,
        reference: Tensor | None = None,
        scales: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The exact inverse of `gather`; differentiable.

        Args:
            tokens: `[networks, tokens, chunk]`.
            dtypes: name → type of each tensor; without it they are of the type of the tokens.
            reference: `[tokens, chunk]`, added to the values once they are multiplied by their scales.
            scales: `[tensors]`.

        Raises:
            ArchitectureError: for tokens of another layout.
        """
        if tuple(tokens.shape[1:]) != (self.tokens, self.chunk):
            raise ArchitectureError(
                "tokens of another layout",
                got=f"shape {tuple(tokens.shape)}",
                expected=f"[networks, {self.tokens}, {self.chunk}]",
            )
        kinds = {name: tokens.dtype if dtypes is None else dtypes[name] for name in self.shapes}
        scales = self._by_segment(scales)
        found: dict[str, Tensor] = {}
        for kind in dict.fromkeys(kinds.values()):
            names = [name for name in self.shapes if kinds[name] == kind]
            sizes = [size_of(self.shapes[name]) for name in names]
            table, chosen = self._part(names)
            own = None if scales is None else scales[chosen]
            flat = scatter_tokens(tokens, table, sizes, kind, None, reference, own)
            for name, part in zip(names, flat.split(sizes, 1), strict=True):
                found[name] = part.reshape(len(tokens), *self.shapes[name])
        return {name: found[name] for name in self.shapes}

    def beside(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of the tensors that are no part of the tokens and must be kept as they are."""
        return {name: self._checked(name, shape, tensors) for name, shape in self.copied.items()}

    def to_json(self) -> dict[str, Any]:
        """As plain values; `from_json` is the inverse."""
        return {
            "version": VERSION,
            "chunk": self.chunk,
            "shapes": [[name, list(shape)] for name, shape in self.shapes.items()],
            "copied": [[name, list(shape)] for name, shape in self.copied.items()],
            "blocks": [[block.kind, [[piece.tensor, piece.axis] for piece in block.pieces]] for block in self.blocks],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Layout":
        """The layout of `to_json`.

        Raises:
            CorruptFileError: if it is not one, or not one in which every tensor has one place.
        """
        try:
            if value["version"] != VERSION:
                raise ValueError(f"version {value['version']!r}")
            shapes, copied = ({name: _lengths(shape) for name, shape in value[key]} for key in ("shapes", "copied"))
            blocks = tuple(
                RowBlock(kind, tuple(Piece(name, axis) for name, axis in pieces)) for kind, pieces in value["blocks"]
            )
            _check_blocks(blocks, shapes)
            (chunk,) = _lengths([value["chunk"]])
            if chunk < 1:
                raise ValueError(f"chunk {chunk}")
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise CorruptFileError("not a layout that this version can read", got=str(error)) from error
        return cls(chunk, shapes, copied, blocks)

    def _columns(self, block: RowBlock) -> int:
        return -(-row_width(block, self.shapes) // self.chunk)

    def _by_segment(self, scales: Tensor | None) -> Tensor | None:
        return None if scales is None else scales[self.table[:, 0]]

    def _part(self, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The table of some tensors alone, which are numbered anew, and where its segments stand in the whole one."""
        if len(names) == len(self.shapes):
            return self.table, torch.arange(len(self.table))
        numbers = torch.full((len(self.shapes),), -1)
        places = {name: number for number, name in enumerate(self.shapes)}
        numbers[[places[name] for name in names]] = torch.arange(len(names))
        chosen = (numbers[self.table[:, 0]] >= 0).nonzero().squeeze(1)
        table = self.table[chosen]
        table[:, 0] = numbers[table[:, 0]]
        return table, chosen

    def _checked(self, name: str, shape: tuple[int, ...], tensors: Mapping[str, Tensor]) -> Tensor:
        if name not in tensors or tuple(tensors[name].shape[1:]) != shape:
            raise ArchitectureError(
                "tensors that do not fit the layout",
                where=f"tensor '{name}'",
                got="no such tensor" if name not in tensors else f"shape {tuple(tensors[name].shape)}",
                expected=f"[networks, {', '.join(map(str, shape))}]",
            )
        return tensors[name]


@functools.lru_cache(maxsize=256)
def layout_of(architecture: Architecture, chunk: int) -> Layout:
    """The layout of an architecture in chunks of `chunk` values."""
    with torch.device("meta"):
        return Layout.of(architecture.build().state_dict(), chunk)


def _lengths(values: Sequence[Any]) -> tuple[int, ...]:
    if not all(type(value) is int and value >= 0 for value in values):
        raise ValueError(f"lengths {values!r}")
    return tuple(values)


def _check_blocks(blocks: Sequence[RowBlock], shapes: Shapes) -> None:
    """Refuses blocks that would not lay out every value once."""
    placed = [piece.tensor for block in blocks for piece in block.pieces]
    if sorted(placed) != sorted(name for name, shape in shapes.items() if size_of(shape)):
        raise ValueError("not every tensor has one place")
    for block in blocks:
        if block.kind not in KINDS:
            raise ValueError(f"kind {block.kind!r}")
        axes = [(piece.axis, shapes[piece.tensor]) for piece in block.pieces]
        for axis, shape in axes:
            if axis is not None and not (type(axis) is int and 0 <= axis < len(shape)):
                raise ValueError(f"axis {axis!r} of a tensor of shape {shape}")
        rows = {1 if axis is None else shape[axis] for axis, shape in axes}
        if len(rows) != 1:
            raise ValueError(f"pieces of {sorted(rows)} rows in one block")
