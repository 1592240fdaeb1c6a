"""What torch's transforms need to know of the operators: their fake forms, their gradients and how they vmap."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from weightgen.errors import KernelError
from weightgen.kernels.ops import gather_tokens, scatter_codes, scatter_tokens


@torch.library.register_fake("weightgen::gather_tokens")
def _(tensors, table, tokens, chunk, dtype, permutations=None, subtracted=None, scales=None, divide=True) -> Tensor:
    return tensors[0].new_empty((tensors[0].shape[0], tokens, chunk), dtype=dtype)


@torch.library.register_fake("weightgen::scatter_tokens")
def _(tokens, table, sizes, dtype, permutations=None, added=None, scales=None, divide=False) -> Tensor:
    return tokens.new_empty((tokens.shape[0], sum(sizes)), dtype=dtype)


@torch.library.register_fake("weightgen::scatter_codes")
def _(codes, codebooks, table, sizes, dtype, permutations=None, added=None, scales=None, divide=False) -> Tensor:
    return codes.new_empty((codes.shape[0], sum(sizes)), dtype=dtype)


def _save(context: Any, table: Tensor, permutations: Tensor | None, constants: Sequence[Tensor | None]) -> None:
    """Keeps what a backward pass needs.

    A gradient for reference or scales would be zero in silence, so it is refused.
    """
    if any(constant is not None and constant.requires_grad for constant in constants):
        raise KernelError(
            "reference and scales are constants", got="one that requires a gradient", remedy="detach them first"
        )
    context.save_for_backward(table, permutations, constants[1])


def _save_gather(ctx: Any, inputs: tuple, output: Tensor) -> None:
    tensors, table, _, _, _, permutations, subtracted, scales, divide = inputs
    _save(ctx, table, permutations, (subtracted, scales))
    ctx.shapes, ctx.kinds, ctx.divide = [list(one.shape) for one in tensors], [one.dtype for one in tensors], divide


def _backward_gather(ctx: Any, gradient: Tensor) -> tuple:
    table, permutations, scales = ctx.saved_tensors
    sizes = [torch.Size(shape[1:]).numel() for shape in ctx.shapes]
    flat = scatter_tokens(gradient, table, sizes, gradient.dtype, permutations, None, scales, ctx.divide)
    tensors = [
        part.reshape(shape).to(kind)
        for part, shape, kind in zip(flat.split(sizes, 1), ctx.shapes, ctx.kinds, strict=True)
    ]
    return tensors, *[None] * 8


def _save_scatter(ctx: Any, inputs: tuple, output: Tensor) -> None:
    tokens, table, sizes, _, permutations, added, scales, divide = inputs
    _save(ctx, table, permutations, (added, scales))
    ctx.shape, ctx.kind, ctx.sizes, ctx.divide = tokens.shape, tokens.dtype, sizes, divide


def _gathered(ctx: Any, gradient: Tensor, table: Tensor, permutations: Tensor | None, scales: Tensor | None) -> Tensor:
    """The gradient of the tokens, from that of the tensors."""
    tensors = gradient.split(list(ctx.sizes), 1)
    return gather_tokens(tensors, table, ctx.shape[1], ctx.shape[2], ctx.kind, permutations, None, scales, ctx.divide)


def _backward_scatter(ctx: Any, gradient: Tensor) -> tuple:
    return _gathered(ctx, gradient, *ctx.saved_tensors), *[None] * 7


def _save_codes(ctx: Any, inputs: tuple, output: Tensor) -> None:
    codes, codebooks, table, sizes, _, permutations, added, scales, divide = inputs
    _save(ctx, table, permutations, (added, scales))
    ctx.save_for_backward(*ctx.to_save, codes)
    ctx.shape, ctx.kind = (*codes.shape[:2], codebooks.shape[2]), codebooks.dtype
    ctx.entries, ctx.sizes, ctx.divide = codebooks.shape[1], sizes, divide


def _backward_codes(ctx: Any, gradient: Tensor) -> tuple:
    table, permutations, scales, codes = ctx.saved_tensors
    tokens = _gathered(ctx, gradient, table, permutations, scales).flatten(0, 1)
    levels = codes.flatten(0, 1).long().unbind(1)
    zeros = tokens.new_zeros((ctx.entries, tokens.shape[1]))
    codebooks = torch.stack([zeros.index_add(0, level, tokens) for level in levels])
    return None, codebooks, *[None] * 7


torch.library.register_autograd("weightgen::gather_tokens", _backward_gather, setup_context=_save_gather)
torch.library.register_autograd("weightgen::scatter_tokens", _backward_scatter, setup_context=_save_scatter)
torch.library.register_autograd("weightgen::scatter_codes", _backward_codes, setup_context=_save_codes)


def _folded(tensor: Tensor, axis: int | None, size: int) -> Tensor:
    """A mapped axis made part of the axis of networks; what is not mapped is repeated."""
    moved = tensor.expand(size, *tensor.shape) if axis is None else tensor.movedim(axis, 0)
    return moved.flatten(0, 1)


def _mapped(operator: Callable[..., Tensor], batched: Sequence[int]) -> Callable[..., Any]:
    """The vmap rule of an operator whose arguments `batched` have networks as their first axis.

    Mapped networks are more networks. Where one of the other arguments is mapped, the operator runs once for each.
    """

    def rule(info: Any, in_dims: tuple, *arguments: Any) -> tuple[Tensor, int]:
        places = dict(enumerate(in_dims))
        size = info.batch_size

        def axes(place: int) -> list[int | None]:
            dims = places.get(place)
            return list(dims) if isinstance(dims, (list, tuple)) else [dims]

        others = [place for place in range(len(arguments)) if place not in batched]
        if any(axis is not None for place in others for axis in axes(place)):
            return _one_by_one(operator, size, axes, arguments)
        folded = list(arguments)
        for place in (place for place in batched if place < len(arguments)):
            if isinstance(arguments[place], Tensor):
                folded[place] = _folded(arguments[place], axes(place)[0], size)
            elif arguments[place] is not None:
                folded[place] = [
                    _folded(one, axis, size) for one, axis in zip(arguments[place], axes(place), strict=True)
                ]
        found = operator(*folded)
        return found.unflatten(0, (size, len(found) // size)), 0

    return rule


def _one_by_one(operator: Callable[..., Tensor], size: int, axes: Callable, arguments: tuple) -> tuple[Tensor, int]:
    def chosen(place: int, index: int) -> Any:
        argument = arguments[place]
        if isinstance(argument, Tensor):
            return _picked(argument, axes(place)[0], index)
        if isinstance(argument, (list, tuple)) and all(isinstance(one, Tensor) for one in argument):
            return [_picked(one, axis, index) for one, axis in zip(argument, axes(place), strict=True)]
        return argument

    places = range(len(arguments))
    return torch.stack([operator(*(chosen(place, index) for place in places)) for index in range(size)]), 0


def _picked(tensor: Tensor, axis: int | None, index: int) -> Tensor:
    return tensor if axis is None else tensor.select(axis, index)


torch.library.register_vmap("weightgen::gather_tokens", _mapped(gather_tokens, (0, 5)))
torch.library.register_vmap("weightgen::scatter_tokens", _mapped(scatter_tokens, (0, 4)))
torch.library.register_vmap("weightgen::scatter_codes", _mapped(scatter_codes, (0, 5)))
