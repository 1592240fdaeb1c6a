"""The operators `weightgen::gather_tokens`, `weightgen::scatter_tokens` and `weightgen::scatter_codes`.

Each moves a whole batch of networks at once and has twins that give the same numbers: `reference.py`, C++ and CUDA
(`native.py` chooses). All have fake forms for `torch.compile`, and they differentiate and `vmap`; `torch.func.grad` is
beyond what torch lets operators from Python do. What does not change from network to network, the reference and the
scales, is a constant: it takes no gradient.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor

from weightgen.errors import KernelError
from weightgen.kernels import native, reference
from weightgen.kernels.segments import check_permutations, check_table, covers, fills

Function = TypeVar("Function", bound=Callable[..., Tensor])


def _operator(function: Function) -> Function:
    """Makes a function the operator of its name.

    `torch.library.custom_op` would do the same and more, but its first call imports the compiler of torch, for seconds.
    """
    name = f"weightgen::{function.__name__}"
    schema = torch.library.infer_schema(function, mutates_args=())
    torch.library.define(name, schema, tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.impl(name, "default", function)
    operator = getattr(torch.ops.weightgen, function.__name__).default
    return cast(Function, functools.wraps(function)(lambda *arguments, **named: operator(*arguments, **named)))


FLOATING = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
"""What values may be computed with; other types can be moved but not normalised or cast."""
CODES = (torch.int64, torch.int32, torch.int16, torch.uint8)
"""What codes may be: the narrower, the less there is to read."""


@_operator
def gather_tokens(
    tensors: Sequence[Tensor],
    table: Tensor,
    tokens: int,
    chunk: int,
    dtype: torch.dtype,
    permutations: Tensor | None = None,
    subtracted: Tensor | None = None,
    scales: Tensor | None = None,
    divide: bool = True,
) -> Tensor:
    """Tensors of a batch of networks to tokens: permute, normalise, pad and cast in one pass.

    Args:
        tensors: each `[networks, …]`, of any types.
        table: int64 `[segments, FIELDS]` on the CPU, see `segments.py`.
        tokens: how many tokens a network has.
        chunk: values a token.
        dtype: of the tokens; arithmetic is in float32, in float64 if this is float64.
        permutations: int64 `[networks, units]`, where the table names any.
        subtracted: `[tokens, chunk]`, taken from the values in their places.
        scales: `[segments]`, what the values of each segment are then divided by, or multiplied with.
        divide: whether scales divide.

    Returns:
        `[networks, tokens, chunk]`, zero where there is no value.

    Raises:
        KernelError: for arguments that do not fit one another.
    """
    networks, flat = _flat(tensors)
    sizes = [tensor.shape[1] for tensor in flat]
    if subtracted is not None or scales is not None or any(tensor.dtype != dtype for tensor in flat):
        _check_floating([*(tensor.dtype for tensor in flat), dtype])
    check_table(table, sizes, tokens * chunk)
    check_permutations(permutations, table, networks, flat[0].device)
    frame = _frame(table, tokens, chunk, dtype, flat[0].device, subtracted, scales)
    create = flat[0].new_empty if fills(table, tokens * chunk) else flat[0].new_zeros
    out = create((networks, tokens * chunk), dtype=dtype)
    if out.numel():
        twin = native.choose(out.device, out.numel()) or reference
        twin.gather_tokens(flat, table, out, _contiguous(permutations), *frame, divide)
    return out.view(networks, tokens, chunk)


@_operator
def scatter_tokens(
    tokens: Tensor,
    table: Tensor,
    sizes: Sequence[int],
    dtype: torch.dtype,
    permutations: Tensor | None = None,
    added: Tensor | None = None,
    scales: Tensor | None = None,
    divide: bool = False,
) -> Tensor:
    """The inverse of `gather_tokens`: scale, add, permute back and cast in one pass.

    Args:
        tokens: `[networks, tokens, chunk]`; arithmetic is in float32, in float64 if they are float64.
        table: as for `gather_tokens`.
        sizes: values of each tensor of one network.
        dtype: of the tensors.
        permutations: those of `gather_tokens`; here they are undone.
        added: `[tokens, chunk]`, added to the scaled values in their places.
        scales: `[segments]`, what the values of each segment are multiplied with, or divided by.
        divide: whether scales divide.

    Returns:
        `[networks, values]`, in which the tensors stand one after the other; `.split(sizes, 1)` gives each.

    Raises:
        KernelError: for arguments that do not fit one another.
    """
    if tokens.dim() != 3:
        raise KernelError("tokens of the wrong shape", got=tuple(tokens.shape), expected="[networks, tokens, chunk]")
    networks, count, chunk = tokens.shape
    if added is not None or scales is not None or tokens.dtype != dtype:
        _check_floating([tokens.dtype, dtype])
    check_table(table, sizes, count * chunk)
    check_permutations(permutations, table, networks, tokens.device)
    frame = _frame(table, count, chunk, tokens.dtype, tokens.device, added, scales)
    out, parts = _tensors(tokens, table, networks, sizes, dtype)
    if out.numel():
        flat = tokens.contiguous().view(networks, count * chunk)
        twin = native.choose(tokens.device, out.numel()) or reference
        twin.scatter_tokens(flat, table, parts, _contiguous(permutations), *frame, divide)
    return out


@_operator
def scatter_codes(
    codes: Tensor,
    codebooks: Tensor,
    table: Tensor,
    sizes: Sequence[int],
    dtype: torch.dtype,
    permutations: Tensor | None = None,
    added: Tensor | None = None,
    scales: Tensor | None = None,
    divide: bool = False,
) -> Tensor:
    """`scatter_tokens` of tokens that are sums of codebook entries, which are looked up in the same pass.

    Args:
        codes: `[networks, tokens, levels]` of one of the types `CODES`.
        codebooks: `[levels, entries, chunk]`; a token is the sum of one entry of each level, first to last.
        table, sizes, dtype, permutations, added, scales, divide: as for `scatter_tokens`.

    Returns:
        `[networks, values]`, in which the tensors stand one after the other; `.split(sizes, 1)` gives each.

    Raises:
        KernelError: for codes outside the codebook, or arguments that do not fit one another.
    """
    fits = codes.dim() == codebooks.dim() == 3 and codes.shape[2] == codebooks.shape[0] > 0
    if not fits or codes.dtype not in CODES or codes.device != codebooks.device:
        raise KernelError(
            "codes that do not fit the codebooks",
            got=f"{codes.dtype} {tuple(codes.shape)} for codebooks {tuple(codebooks.shape)} on {codebooks.device}",
            expected=f"[networks, tokens, levels] of {', '.join(map(str, CODES))} on {codebooks.device} "
            "for codebooks [levels, entries, chunk]",
        )
    networks, count, _ = codes.shape
    chunk = codebooks.shape[2]
    _check_floating([codebooks.dtype, dtype])
    check_codes(codes, codebooks.shape[1])
    check_table(table, sizes, count * chunk)
    check_permutations(permutations, table, networks, codes.device)
    frame = _frame(table, count, chunk, codebooks.dtype, codes.device, added, scales)
    out, parts = _tensors(codes, table, networks, sizes, dtype)
    if out.numel():
        twin = native.choose(codes.device, out.numel()) or reference
        arguments = (
            codes.contiguous(),
            codebooks.contiguous(),
            table,
            parts,
            _contiguous(permutations),
            *frame,
            divide,
        )
        twin.scatter_codes(*arguments)
    return out


def check_codes(codes: Tensor, entries: int) -> None:
    """Refuses codes outside the codebook.

    Raises:
        KernelError: with the first of them.
    """
    if not codes.numel():
        return
    least, most = torch.aminmax(codes)
    if least < 0 or most >= entries:
        network, token, level = ((codes < 0) | (codes >= entries)).nonzero()[0].tolist()
        raise KernelError(
            "a code outside the codebook",
            where=f"network {network}, token {token}, level {level}",
            got=int(codes[network, token, level]),
            expected=f"0 to {entries - 1}",
        )


def _flat(tensors: Sequence[Tensor]) -> tuple[int, list[Tensor]]:
    """How many networks there are, and each tensor contiguous as `[networks, values]`."""
    if not tensors or any(tensor.dim() == 0 for tensor in tensors):
        raise KernelError("nothing to gather", got="no tensors, or one without an axis of networks")
    networks, device = len(tensors[0]), tensors[0].device
    for number, tensor in enumerate(tensors):
        if len(tensor) != networks or tensor.device != device:
            raise KernelError(
                "tensors of different batches",
                where=f"tensor {number}",
                got=f"{len(tensor)} networks on {tensor.device}",
                expected=f"{networks} on {device}",
            )
    return networks, [_rows(tensor, networks) for tensor in tensors]


def _rows(tensor: Tensor, networks: int) -> Tensor:
    """`[networks, values]`, the values of each network side by side; a copy only if they are not."""
    flat = tensor.reshape(networks, math.prod(tensor.shape[1:]))
    return flat if flat.shape[1] < 2 or flat.stride(1) == 1 else flat.contiguous()


def _tensors(
    like: Tensor, table: Tensor, networks: int, sizes: Sequence[int], dtype: torch.dtype
) -> tuple[Tensor, Sequence[Tensor]]:
    """What to write to, as a whole and by tensor; zero if the table does not cover all of it."""
    create = like.new_empty if all(covers(table, sizes)) else like.new_zeros
    out = create((networks, sum(sizes)), dtype=dtype)
    return out, out.split(list(sizes), 1) if sizes else ()


def _frame(
    table: Tensor,
    tokens: int,
    chunk: int,
    dtype: torch.dtype,
    device: torch.device,
    shift: Tensor | None,
    scales: Tensor | None,
) -> tuple[Tensor | None, Tensor | None]:
    """The reference `[tokens · chunk]` and the scales `[segments]` in the type that is computed with."""
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    for name, constant in (("reference", shift), ("scales", scales)):
        if constant is not None and constant.device != device:
            raise KernelError(f"the {name} and the values on different devices", got=constant.device, expected=device)
    if shift is not None:
        if shift.shape != (tokens, chunk):
            raise KernelError(
                "a reference of the wrong shape", got=tuple(shift.shape), expected=f"[tokens, chunk], {tokens, chunk}"
            )
        shift = shift.to(compute).contiguous().view(-1)
    if scales is not None:
        if scales.shape != table.shape[:1]:
            raise KernelError(
                "scales that do not fit the table", got=tuple(scales.shape), expected=f"[segments], {len(table)}"
            )
        scales = scales.to(compute).contiguous()
    return shift, scales


def _check_floating(kinds: Sequence[torch.dtype]) -> None:
    for kind in kinds:
        if kind not in FLOATING:
            raise KernelError(
                "a type that can be moved but not computed with",
                got=kind,
                expected=", ".join(map(str, FLOATING)),
                remedy="gather it in its own type, without reference and scales",
            )


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()
