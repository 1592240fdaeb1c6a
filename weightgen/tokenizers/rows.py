"""Rows: which values of a network stand side by side in the token matrix, from the names and shapes of its tensors.

A row is what belongs to one output unit: its incoming weights, its bias, and the parameters and statistics of a norm
that directly follows. What stands alone, such as a norm before a layer or a scale, is a row of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

KINDS = ("linear", "convolution", "embedding", "norm", "vector", "array")
"""What a row is: of a layer, of a norm or a vector that stands alone, or of another tensor such as positions."""

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Piece:
    """What one tensor gives to each row of a block.

    Args:
        tensor: its name.
        axis: the axis along which it is cut into rows; None if all of it is one row.
    """

    tensor: str
    axis: int | None


@dataclass(frozen=True)
class RowBlock:
    """The rows of one layer: each is one row of every piece, side by side."""

    kind: str
    pieces: tuple[Piece, ...]


def row_blocks(shapes: Shapes) -> tuple[RowBlock, ...]:
    """All tensors that have values in blocks of rows, each tensor in one of them, in the order of `shapes`."""
    modules: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        if size_of(shape):
            module, _, _ = name.rpartition(".")
            modules.setdefault(module, {})[name] = shape
    blocks: list[RowBlock] = []
    follows: RowBlock | None = None
    for tensors in modules.values():
        if follows is not None and is_norm(tensors, row_count(follows, shapes)):
            joined = (*follows.pieces, *(Piece(name, 0) for name in tensors))
            blocks[-1] = RowBlock(follows.kind, joined)
            follows = None
            continue
        own = _module_blocks(tensors)
        blocks.extend(own)
        # Which of several layers in one module a norm would belong to is not evident.
        follows = own[0] if len(own) == 1 and own[0].kind in ("linear", "convolution") else None
    return tuple(blocks)


def row_count(block: RowBlock, shapes: Shapes) -> int:
    first = block.pieces[0]
    return 1 if first.axis is None else shapes[first.tensor][first.axis]


def is_norm(tensors: Shapes, units: int | None = None) -> bool:
    """Whether the tensors of a module are those of a norm, of `units` units if given."""
    leaves = {name.rpartition(".")[2] for name in tensors}
    known = leaves <= {"weight", "bias", "running_mean", "running_var"} and bool(leaves & {"weight", "running_mean"})
    sizes = {shape for shape in tensors.values()}
    return known and len(sizes) == 1 and len(min(sizes)) == 1 and units in (None, min(sizes)[0])


def _module_blocks(tensors: Shapes) -> list[RowBlock]:
    biases = {name: _bias_of(name, tensors) for name in tensors}
    taken = {bias for bias, _ in biases.values()}
    kind = "norm" if is_norm(tensors) else "vector"
    blocks = []
    for name, shape in tensors.items():
        bias, axis = biases[name]
        if name in taken:
            continue
        if bias is not None:
            blocks.append(RowBlock(_kind(name, shape), (Piece(name, axis), Piece(bias, 0))))
        elif len(shape) < 2:
            blocks.append(RowBlock(kind, (Piece(name, None),)))
        elif "weight" in name.rpartition(".")[2]:
            blocks.append(RowBlock(_kind(name, shape), (Piece(name, 0),)))
        else:
            blocks.append(RowBlock("array", (Piece(name, _array_axis(shape)),)))
    return blocks


def _bias_of(name: str, tensors: Shapes) -> tuple[str | None, int]:
    """The bias that belongs to a weight, and the weight's axis that it lies along: the second if not the first."""
    shape, (module, dot, leaf) = tensors[name], name.rpartition(".")
    bias = f"{module}{dot}{leaf.replace('weight', 'bias')}"
    if len(shape) >= 2 and "weight" in leaf and bias in tensors and len(tensors[bias]) == 1:
        for axis in (0, 1):
            if tensors[bias][0] == shape[axis]:
                return bias, axis
    return None, 0


def _kind(name: str, shape: Sequence[int]) -> str:
    layer = name.rpartition(".")[0].rpartition(".")[2]
    if len(shape) > 2:
        return "convolution"
    return "embedding" if "embed" in layer or layer in ("wte", "wpe", "shared") else "linear"


def _array_axis(shape: Sequence[int]) -> int | None:
    """The first axis longer than 1, unless its rows would be single values."""
    axis = next((axis for axis, length in enumerate(shape) if length > 1), None)
    return axis if axis is not None and size_of(shape) > shape[axis] else None


def size_of(shape: Sequence[int]) -> int:
    """How many values a tensor of this shape has."""
    size = 1
    for length in shape:
        size *= length
    return size
