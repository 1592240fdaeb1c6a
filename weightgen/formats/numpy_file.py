"""`.npz` and `.npy`: arrays by name; no pickle within them is opened."""

import io
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy
from numpy.lib import format as numpy_format

from weightgen.checkpoint import KINDS, Card
from weightgen.errors import CorruptFileError
from weightgen.formats.format import Network, damaged, register
from weightgen.formats.tensors import facts, made_with, network, once, read_into, split_facts

if TYPE_CHECKING:
    from torch import Tensor

MAXIMUM_PACKED = 2 * 2**30
"""Bytes that one packed array may have; what is stored as it is may have as many as the file."""

Arrays = dict[str, tuple[str, tuple[int, ...], Callable[[], numpy.ndarray]]]
"""Name → numpy's name of its kind, shape, and the function that reads it."""


def _recognises_array(path: Path, head: bytes) -> bool:
    return head[:6] == b"\x93NUMPY"


def _recognises_archive(path: Path, head: bytes) -> bool:
    if head[:2] != b"PK":
        return False
    names = zipfile.ZipFile(path).namelist()
    # What Stable-Baselines3 writes beside an agent holds returns and no network.
    evaluations = {"timesteps.npy", "results.npy"} <= set(names)
    return bool(names) and all(name.endswith(".npy") for name in names) and not evaluations


@register("npy", "NumPy array", _recognises_array)
def read_array(path: Path) -> list[Network]:
    """One array is a network of one tensor."""
    with open(path, "rb") as file:
        dtype, shape, start = _header(file, path.stat().st_size)

    def read() -> numpy.ndarray:
        with open(path, "rb") as again:
            return _array(again, start, dtype, shape)

    return _networks(path, {"array": (dtype.name, shape, read)}, "npy")


@register("npz", "NumPy archive", _recognises_archive)
def read_archive(path: Path) -> list[Network]:
    """The arrays of an archive are one network; scalars and texts among them are what is known of it."""
    return _networks(path, arrays(path), "npz")


def arrays(path: Path) -> Arrays:
    """The arrays of an archive; their sizes are checked before memory is taken.

    Raises:
        CorruptFileError: for an array of objects, or one whose size is not that of its member.
    """
    found: Arrays = {}
    with zipfile.ZipFile(path) as archive:
        for info in once((info.filename, info) for info in archive.infolist()).values():
            packed = info.compress_type != zipfile.ZIP_STORED
            most = min(MAXIMUM_PACKED, 1100 * info.compress_size + 1000) if packed else path.stat().st_size
            if info.file_size > most:
                raise damaged(path, f"its member {info.filename!r} says that it has {info.file_size:,} bytes")
            with archive.open(info) as member:
                dtype, shape, start = _header(member, info.file_size)

            def read(name: str = info.filename, start: int = start, dtype: Any = dtype, shape: Any = shape) -> Any:
                with zipfile.ZipFile(path) as again, again.open(name) as opened:
                    return _array(opened, start, dtype, shape)

            found[info.filename.removesuffix(".npy")] = dtype.str, shape, read
    return found


def _header(file: IO[bytes], size: int) -> tuple[numpy.dtype, tuple[int, ...], int]:
    """Kind, shape and beginning of the values of an array of `size` bytes in all."""
    begin = io.BytesIO(file.read(16 * 1024))
    version = numpy_format.read_magic(begin)
    reader = numpy_format.read_array_header_1_0 if version == (1, 0) else numpy_format.read_array_header_2_0
    shape, fortran, dtype = reader(begin)
    if dtype.hasobject:
        raise CorruptFileError("an array of Python objects, which only a pickle can hold", got=str(dtype))
    if fortran and len(shape) > 1:
        dtype = numpy.dtype(dtype, metadata={"fortran": True})
    start = begin.tell()
    if any(one < 0 for one in shape) or math.prod(shape) * dtype.itemsize != size - start:
        raise ValueError(f"an array of shape {list(shape)[:8]} in {size - start:,} bytes")
    return dtype, tuple(shape), start


def _array(file: IO[bytes], start: int, dtype: numpy.dtype, shape: tuple[int, ...]) -> numpy.ndarray:
    file.read(start)
    content = read_into(file, math.prod(shape) * dtype.itemsize)
    order = "F" if dtype.metadata else "C"
    values = numpy.frombuffer(content, dtype).reshape(shape, order=order)
    return values.astype(dtype.newbyteorder("="), order="C", copy=False)


def _networks(path: Path, found: Arrays, name: str) -> list[Network]:
    kinds, texts = {}, {}
    for key, (kind, shape, read) in found.items():
        dtype = numpy.dtype(kind)
        if dtype.kind in "US":
            texts[key] = read().tolist() if math.prod(shape) <= 20 else ""
        elif dtype.name not in KINDS:
            raise CorruptFileError(f"the array '{key}' is of a kind that is not stored", where=path, got=dtype.name)
        elif shape == () and name == "npz":
            texts[key] = read().item()
        else:
            kinds[key] = dtype.name, shape

    def tensor(key: str) -> "Tensor":
        import torch

        return torch.from_numpy(found[key][2]())

    texts = {
        key: value.decode("utf-8", "replace") if isinstance(value, bytes) else value for key, value in texts.items()
    }
    settings, metrics = split_facts(facts(texts))
    card = Card(origin="ingested", hyperparameters=settings, metrics=metrics, made_with=made_with(name, path))
    return [Network("", network(kinds, tensor, card, path))]
