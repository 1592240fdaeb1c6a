"""The kernels in plain torch: what the C++ and CUDA twins compute, a segment at a time.

Arithmetic is in float32, or in float64 where the tokens are float64, and each operation rounds once, so that all three
give the same numbers. Values that are only moved keep every bit.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from weightgen.kernels.segments import Segment, segments_of

_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def gather_tokens(
    tensors: Sequence[Tensor],  # each [networks, values of the tensor], those of one network side by side
    table: Tensor,  # [segments, fields]
    out: Tensor,  # [networks, tokens · chunk], written
    permutations: Tensor | None,  # [networks, units]
    reference: Tensor | None,  # [tokens · chunk]
    scales: Tensor | None,  # [segments]
    divide: bool,
) -> None:
    compute, constant = _compute(out.dtype), reference is None and scales is None
    for number, segment in enumerate(segments_of(table)):
        tensor, to = tensors[segment.tensor], out
        if constant and tensor.dtype == out.dtype:
            tensor, to = _bits(tensor), _bits(out)
        values = _permuted(_source(tensor, segment), segment, permutations)
        if not constant or tensor.dtype != to.dtype:
            values = values.to(compute)
        if reference is not None:
            values = values - _target(reference[None], segment)
        if scales is not None:
            values = values / scales[number] if divide else values * scales[number]
        _target(to, segment).copy_(values)
        _padding(to, segment).zero_()


def scatter_tokens(
    tokens: Tensor,  # [networks, tokens · chunk]
    table: Tensor,  # [segments, fields]
    out: Sequence[Tensor],  # each [networks, values of the tensor], written
    permutations: Tensor | None,  # [networks, units]
    reference: Tensor | None,  # [tokens · chunk]
    scales: Tensor | None,  # [segments]
    divide: bool,
) -> None:
    compute, constant = _compute(tokens.dtype), reference is None and scales is None
    for number, segment in enumerate(segments_of(table)):
        tensor, given = out[segment.tensor], tokens
        if constant and tensor.dtype == tokens.dtype:
            tensor, given = _bits(tensor), _bits(tokens)
        values = _target(given, segment)
        if not constant or tensor.dtype != given.dtype:
            values = values.to(compute)
        if scales is not None:
            values = values / scales[number] if divide else values * scales[number]
        if reference is not None:
            values = values + _target(reference[None], segment)
        inverse = None if permutations is None else _inverse(permutations, segment)
        _source(tensor, segment).copy_(_permuted(values, segment, inverse))


def scatter_codes(
    codes: Tensor,  # [networks, tokens, levels]
    codebooks: Tensor,  # [levels, entries, chunk]
    table: Tensor,
    out: Sequence[Tensor],
    permutations: Tensor | None,
    reference: Tensor | None,
    scales: Tensor | None,
    divide: bool,
) -> None:
    books = codebooks.to(_compute(codebooks.dtype))
    codes = codes.long()  # as an index, uint8 would be a mask
    tokens = books[0][codes[..., 0]]
    for level in range(1, len(books)):
        tokens = tokens + books[level][codes[..., level]]
    scatter_tokens(tokens.flatten(1), table, out, permutations, reference, scales, divide)


def _compute(tokens: torch.dtype) -> torch.dtype:
    return torch.float64 if tokens == torch.float64 else torch.float32


def _bits(tensor: Tensor) -> Tensor:
    """Its bytes as whole numbers: a copy of half precision may change what kind of NaN a NaN is."""
    return tensor.view(_WHOLE.get(tensor.itemsize, tensor.dtype))


def _shape(segment: Segment) -> tuple[int, ...]:
    return (segment.rows // segment.row_block, segment.row_block, segment.units, segment.block)


def _source(flat: Tensor, segment: Segment) -> Tensor:
    """The segment in its tensor: a view `[networks, row groups, row_block, units, block]`."""
    row = segment.source_row_stride
    strides = (flat.stride(0), row * segment.row_block, row, segment.source_unit_stride, 1)
    return flat.as_strided((len(flat), *_shape(segment)), strides, flat.storage_offset() + segment.source_offset)


def _target(flat: Tensor, segment: Segment) -> Tensor:
    """The segment in the token matrix: a view of the same shape as `_source`."""
    row = segment.target_row_stride
    strides = (flat.shape[1], row * segment.row_block, row, segment.block, 1)
    return flat.as_strided((len(flat), *_shape(segment)), strides, flat.storage_offset() + segment.target_offset)


def _padding(flat: Tensor, segment: Segment) -> Tensor:
    """The zeros after each row: a view `[networks, rows, padding]`."""
    shape, strides = (len(flat), segment.rows, segment.padding), (flat.shape[1], segment.target_row_stride, 1)
    return flat.as_strided(shape, strides, flat.storage_offset() + segment.target_offset + segment.width)


def _permuted(values: Tensor, segment: Segment, permutations: Tensor | None) -> Tensor:
    """Row group `p(i)` at place i, and unit `p(i)` of the columns likewise."""
    if permutations is None:
        return values
    if segment.row_permutation >= 0:
        values = values.take_along_dim(_order(segment.row_permutation, values.shape[1], permutations, 1), 1)
    if segment.column_permutation >= 0:
        values = values.take_along_dim(_order(segment.column_permutation, values.shape[3], permutations, 3), 3)
    return values


def _order(first: int, length: int, permutations: Tensor, axis: int) -> Tensor:
    shape = [len(permutations), 1, 1, 1, 1]
    shape[axis] = length
    return permutations[:, first : first + length].reshape(shape)


def _inverse(permutations: Tensor, segment: Segment) -> Tensor:
    """The permutations that undo those of a segment."""
    inverse = permutations.clone()
    places = {(segment.row_permutation, segment.rows // segment.row_block), (segment.column_permutation, segment.units)}
    for first, length in places:
        if first >= 0:
            inverse[:, first : first + length] = permutations[:, first : first + length].argsort(1)
    return inverse
