"""The C++ and CUDA twins, and the choice of a twin.

`WEIGHTGEN_KERNELS` chooses: `reference`, `cpu` and `cuda` are taken at their word and never fall back. `auto`, the
default, takes the library of the tensors' device if it was built before, by whichever process. It builds it only once
this process has moved `WORTH_BUILDING` values without, since a compiler takes some ten seconds and the reference takes
less for fewer values; if that fails it says so once and stays with the reference. As all twins give the same numbers,
the choice is one of speed.
"""

import ctypes
import os
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from weightgen.errors import KernelError
from weightgen.kernels.build import build, library_path
from weightgen.registry import unknown_name

CHOICES = ("auto", "reference", "cpu", "cuda")
WORTH_BUILDING = 1 << 32
"""Values for which the reference takes about as long as a compiler."""

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
            "reference", "scales", "divide", "tokens", "kind", "codes", "code_bytes", "levels", "entries", "first",
        )
    ]  # fmt: skip


Launch = Callable[[Callable[..., int], Job, int, torch.device], None]


class Library:
    """The kernels of one built library.

    Args:
        library: what ctypes loaded.
        launch: how a kernel on tiles is called, with function, job, tiles and device; None for kernels on whole jobs.
    """

    def __init__(self, library: ctypes.CDLL, launch: Launch | None = None) -> None:
        self.library, self.launch = library, launch

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
        places = torch.tensor([[one.data_ptr(), kind_of(one.dtype), one.stride(0)] for one in tensors])
        first, tiles = None, 0
        if self.launch is not None:
            first = torch.empty(len(table) + 1, dtype=torch.int64)
            pointers = (ctypes.c_void_p(_pointer(one)) for one in (table, first))
            self.library.weightgen_tiles(*pointers, ctypes.c_int64(len(table)))
            tiles = int(first[-1])
            table, places, first = (one.to(tokens.device) for one in (table, places, first))
        job = Job(
            networks=len(tensors[0]), segments=len(table), tensors=len(tensors), values=values,
            chunk=1 if codes is None else tokens.shape[2], table=_pointer(table), places=_pointer(places),
            permutations=_pointer(permutations), units=0 if permutations is None else permutations.shape[1],
            reference=_pointer(reference), scales=_pointer(scales), divide=divide, tokens=_pointer(tokens),
            kind=kind_of(tokens.dtype), codes=_pointer(codes), code_bytes=0 if codes is None else codes.itemsize,
            levels=0 if codes is None else codes.shape[2], entries=0 if codes is None else tokens.shape[1],
            first=_pointer(first),
        )  # fmt: skip
        function = getattr(self.library, f"weightgen_{name}")
        if self.launch is None:
            function(ctypes.byref(job))
        else:
            self.launch(function, job, tiles, tokens.device)


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
_moved: dict[str, int] = {}
"""Twin → values that this process has moved for want of its library."""


def forget() -> None:
    """Forgets loaded libraries and failed builds, for tests."""
    _libraries.clear()
    _failures.clear()
    _moved.clear()


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
    twin = device.type
    if twin not in ("cpu", "cuda") or twin in _failures:
        return None
    if twin not in _libraries and (twin in _moved or not library_path(twin).exists()):
        _moved[twin] = _moved.get(twin, 0) + values
        if _moved[twin] < WORTH_BUILDING:
            return None
    try:
        return load(twin)
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
            _libraries[twin] = _opened(twin)
        except KernelError as error:
            _failures[twin] = error
            raise
    return _libraries[twin]


def _opened(twin: str) -> Library:
    if twin == "cuda" and not torch.cuda.is_available():
        raise KernelError("no CUDA device is there", where="the cuda kernels", remedy="set WEIGHTGEN_KERNELS=auto")
    path = build(twin)
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelError(f"cannot load the {twin} kernels", where=path, got=str(error)) from error
    if twin == "cpu":
        return Library(library)
    library.weightgen_reason.restype = ctypes.c_char_p

    def on_stream(function: Callable[..., int], job: Job, tiles: int, device: torch.device) -> None:
        with torch.cuda.device(device):
            stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
            status = function(ctypes.byref(job), ctypes.c_int64(tiles), stream)
        if status:
            raise KernelError("a CUDA kernel failed", got=library.weightgen_reason(status).decode())

    return Library(library, on_stream)


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
