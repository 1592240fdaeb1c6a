"""The C++ and CUDA twins, and the choice of a twin.

`WEIGHTGEN_KERNELS` chooses: `reference`, `cpu` and `cuda` are taken at their word and never fall back. `auto`, the
default, takes the library of the tensors' device if it was built before. It builds it only for a call of at least
`WORTH_BUILDING` values, since a compiler takes seconds and the reference takes less for fewer values; if that fails it
says so once and takes the reference from then on. As all twins give the same numbers, the choice is one of speed.
"""

import ctypes
import os
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from weightgen.errors import KernelError
from weightgen.kernels.build import build, library_path
from weightgen.registry import unknown_name

CHOICES = ("auto", "reference", "cpu", "cuda")
WORTH_BUILDING = 1 << 26
"""Values of one call for which a compiler is worth its seconds."""

KINDS = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
MOVED = {1: 4, 2: 2, 4: 0, 8: 1}
"""Bytes of a type that is only moved → the kind that is as long."""
POINTERS = ("table", "places", "permutations", "reference", "scales", "tokens", "codes", "first")


class Job(ctypes.Structure):
    """The arguments of a kernel; its twin is `Job` in `csrc/job.h`."""

    _fields_ = [
        (name, ctypes.c_void_p if name in POINTERS else ctypes.c_int64)
        for name in (
            "networks", "segments", "tensors", "values", "chunk", "table", "places", "permutations", "units",
            "reference", "scales", "divide", "tokens", "kind", "codes", "levels", "entries", "first",
        )
    ]  # fmt: skip


class Library:
    """The kernels of one built library.

    Args:
        library: what ctypes loaded.
        device: where the tensors of its jobs lie, `cpu` or `cuda`.
    """

    def __init__(self, library: ctypes.CDLL, device: str) -> None:
        self.library, self.device = library, device

    def gather_tokens(
        self,
        tensors: Sequence[Tensor],
        table: Tensor,
        out: Tensor,
        permutations: Tensor | None,
        reference: Tensor | None,
        scales: Tensor | None,
        divide: bool,
    ) -> None:
        self._run("gather", tensors, table, out, out.shape[1], permutations, reference, scales, divide)

    def scatter_tokens(
        self,
        tokens: Tensor,
        table: Tensor,
        out: Sequence[Tensor],
        permutations: Tensor | None,
        reference: Tensor | None,
        scales: Tensor | None,
        divide: bool,
    ) -> None:
        self._run("scatter", out, table, tokens, tokens.shape[1], permutations, reference, scales, divide)

    def scatter_codes(
        self,
        codes: Tensor,
        codebooks: Tensor,
        table: Tensor,
        out: Sequence[Tensor],
        permutations: Tensor | None,
        reference: Tensor | None,
        scales: Tensor | None,
        divide: bool,
    ) -> None:
        values = codes.shape[1] * codebooks.shape[2]
        self._run("scatter", out, table, codebooks, values, permutations, reference, scales, divide, codes)

    def _run(
        self,
        name: str,
        tensors: Sequence[Tensor],
        table: Tensor,
        tokens: Tensor,
        values: int,
        permutations: Tensor | None,
        reference: Tensor | None,
        scales: Tensor | None,
        divide: bool,
        codes: Tensor | None = None,
    ) -> None:
        table = table.contiguous()
        places = torch.tensor([[one.data_ptr(), kind_of(one.dtype), one.shape[1]] for one in tensors])
        first = None
        if self.device == "cuda":
            first = torch.empty(len(table) + 1, dtype=torch.int64)
            self.library.weightgen_tiles(*map(ctypes.c_void_p, (_pointer(table), _pointer(first))), ctypes.c_int64(len(table)))
            tiles = int(first[-1])
            table, places, first = (one.to(tokens.device) for one in (table, places, first))
        job = Job(
            networks=len(tensors[0]), segments=len(table), tensors=len(tensors), values=values,
            chunk=1 if codes is None else tokens.shape[2], table=_pointer(table), places=_pointer(places),
            permutations=_pointer(permutations), units=0 if permutations is None else permutations.shape[1],
            reference=_pointer(reference), scales=_pointer(scales), divide=divide, tokens=_pointer(tokens),
            kind=kind_of(tokens.dtype), codes=_pointer(codes), levels=0 if codes is None else codes.shape[2],
            entries=0 if codes is None else tokens.shape[1], first=_pointer(first),
        )  # fmt: skip
        function = getattr(self.library, f"weightgen_{name}")
        if self.device == "cpu":
            function(ctypes.byref(job))
            return
        with torch.cuda.device(tokens.device):
            stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
            status = function(ctypes.byref(job), ctypes.c_int64(tiles), stream)
        if status:
            reason = self.library.weightgen_reason(status).decode()
            raise KernelError("a CUDA kernel failed", where=f"weightgen::{name}", got=reason)


def kind_of(dtype: torch.dtype) -> int:
    """The number of a type in `csrc/segments.h`.

    Raises:
        KernelError: for types of more than 8 bytes.
    """
    if dtype in KINDS:
        return KINDS[dtype]
    if dtype.itemsize not in MOVED:
        raise KernelError("a type that no kernel moves", got=dtype, expected="values of 1, 2, 4 or 8 bytes")
    return MOVED[dtype.itemsize]


_libraries: dict[str, Library] = {}
_failures: dict[str, KernelError] = {}


def forget() -> None:
    """Forgets loaded libraries and failed builds, for tests."""
    _libraries.clear()
    _failures.clear()


def choose(device: torch.device, values: int) -> Library | None:
    """The library to use for tensors on a device and a call of so many values; None for the reference.

    Raises:
        UnknownNameError: if `WEIGHTGEN_KERNELS` is none of `CHOICES`.
        KernelError: if it names a twin that cannot be built, or that is not for tensors on this device.
    """
    choice = os.environ.get("WEIGHTGEN_KERNELS", "auto")
    if choice not in CHOICES:
        raise unknown_name("choice of WEIGHTGEN_KERNELS", choice, CHOICES)
    if choice == "reference":
        return None
    if choice != "auto":
        if choice != device.type:
            raise KernelError(
                "tensors on another device than the kernels chosen", where="WEIGHTGEN_KERNELS", got=device.type,
                expected=choice, remedy="move the tensors, or choose auto",
            )  # fmt: skip
        return load(choice)
    if device.type not in ("cpu", "cuda") or device.type in _failures:
        return None
    if device.type not in _libraries and values < WORTH_BUILDING and not library_path(device.type).exists():
        return None
    try:
        return load(device.type)
    except KernelError as error:
        warnings.warn(f"the slower kernels in plain torch are used: {error}", RuntimeWarning, stacklevel=2)
        return None


def load(twin: str) -> Library:
    """The library of a twin, `cpu` or `cuda`, built if need be; what failed once fails again at once.

    Raises:
        KernelError: if it cannot be built or loaded.
    """
    if twin in _failures:
        raise _failures[twin]
    if twin not in _libraries:
        try:
            _libraries[twin] = Library(_opened(twin), twin)
        except KernelError as error:
            _failures[twin] = error
            raise
    return _libraries[twin]


def _opened(twin: str) -> ctypes.CDLL:
    if twin == "cuda" and not torch.cuda.is_available():
        raise KernelError("no CUDA device is there", where="the cuda kernels", remedy="set WEIGHTGEN_KERNELS=auto")
    path = build(twin)
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelError(f"cannot load the {twin} kernels", where=path, got=str(error)) from error
    if twin == "cuda":
        library.weightgen_reason.restype = ctypes.c_char_p
    return library


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
