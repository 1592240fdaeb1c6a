"""Files that can be trusted: atomic writes, and safetensors whose every byte is covered by a digest."""

import functools
import hashlib
import itertools
import json
import math
import os
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from weightgen.errors import CorruptFileError, MissingDataError, OutputError

if TYPE_CHECKING:
    import numpy
    import torch
    from torch import Tensor

FORMAT_VERSION = 1
METADATA_KEY = "weightgen"

AT_ONCE = 2
"""Tensors of a big file that are written at once, each by a thread of its own."""

WRITTEN = 2**18
"""Bytes that are given to the system at once: of more, Linux seeks as much memory in one piece, which may take ten
times as long as the writing."""

PIECE = 4 * 2**20
"""Bytes of a tensor that are read, hashed and written at once: few enough to stay in the processor's cache."""


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends well, and is gone when it does not.

    Raises:
        OutputError: if the folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:80]}.", suffix=".partial", dir=path.parent)
    except OSError as error:
        raise OutputError(
            "cannot write", where=path, got=error.strerror or str(error), remedy="choose another place"
        ) from error
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        try:
            temporary.replace(path)
        except OSError as error:
            raise OutputError("cannot write", where=path, got=error.strerror) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Writes text atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def tensor_digest(tensor: "Tensor") -> str:
    """A hash of a tensor's kind, shape and bytes."""
    hasher = _hasher(kind_of(tensor), tuple(tensor.shape))
    hasher.update(_content(tensor))
    return hasher.hexdigest()


def _hasher(kind: str, shape: tuple[int, ...]) -> "hashlib._Hash":
    return hashlib.blake2b(f"torch.{kind} {shape}".encode(), digest_size=16)


def write_tensors(path: Path | str, tensors: Mapping[str, "Tensor"], header: Mapping[str, Any]) -> None:
    """Writes tensors and a JSON header as one safetensors file; equal content gives equal bytes.

    The header and the digest of every tensor stand in one metadata entry, since safetensors does not order entries.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    digests = {name: tensor_digest(tensor) for name, tensor in tensors.items()}
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    places: set[int] = set()
    for name, tensor in contiguous.items():
        # safetensors refuses tensors that share memory, which tied layers and views of one stack do.
        if tensor.untyped_storage().data_ptr() in places:
            contiguous[name] = tensor.clone()
        places.add(tensor.untyped_storage().data_ptr())
    with atomic(path) as temporary:
        try:
            save_file(contiguous, temporary, metadata={METADATA_KEY: _sealed(header, digests)})
        except SafetensorError as error:
            raise OutputError(
                "cannot write", where=path, got=str(error), remedy="see that the disk is not full"
            ) from error


def _sealed(header: Mapping[str, Any], digests: Mapping[str, str]) -> str:
    body = json.dumps({"version": FORMAT_VERSION, "header": dict(header), "digests": dict(digests)}, sort_keys=True)
    return json.dumps({"body": body, "digest": hashlib.sha256(body.encode()).hexdigest()})


Shapes = Mapping[str, tuple[str, tuple[int, ...]]]
"""Name → (kind such as `float32`, shape)."""


def pack_tensors(
    path: Path, tensors: Mapping[str, "Tensor"], digests: Mapping[str, str], header: Mapping[str, Any]
) -> None:
    """Writes a file like `write_tensors` of many small tensors whose digests are known: in a third of the time."""
    shapes = {name: (kind_of(tensor), tuple(tensor.shape)) for name, tensor in tensors.items()}
    with atomic(path) as temporary, _writing(path, temporary) as file:
        file.write(_beginning(shapes, header, digests))
        for name in _data_order(shapes):
            content = _bytes(tensors[name])
            for place in range(0, len(content), WRITTEN):
                file.write(content[place : place + WRITTEN])


def stream_tensors(
    path: Path,
    shapes: Shapes,
    pieces: Callable[[str], Iterator["Tensor"]],
    look: Callable[[str, "Tensor"], None],
    draft: tuple[str, Mapping[str, Any]],
    seal: Callable[[dict[str, str]], tuple[str, Mapping[str, Any]]],
) -> str:
    """Writes a file like `write_tensors`, piece by piece, whose header depends on all of them.

    Args:
        pieces: gives the values of one tensor, flat, in parts; each is hashed, written and looked at while it is in
            the processor's cache, and then forgotten. Called from several threads.
        look: is shown name and part, those of one tensor in order; called from several threads.
        draft: a prefix of all names and a header, of the length of those that `seal` will give.
        seal: gives prefix and header from name → digest.

    Returns:
        The prefix; tensors are named `PREFIX/NAME`.
    """

    def beginning(prefix: str, header: Mapping[str, Any], digests: Mapping[str, str]) -> bytes:
        named = {f"{prefix}/{name}": kind for name, kind in shapes.items()}
        return _beginning(named, header, {f"{prefix}/{name}": digest for name, digest in digests.items()})

    with atomic(path) as temporary, _writing(path, temporary) as file, ThreadPoolExecutor(AT_ONCE) as pool:
        start = beginning(*draft, dict.fromkeys(shapes, "0" * 32))
        order = _data_order(shapes)
        places = itertools.accumulate((_size(*shapes[name]) for name in order), initial=len(start))

        def store(name: str, place: int) -> str:
            hasher = _hasher(*shapes[name])
            for piece in pieces(name):
                content = _bytes(piece)
                hasher.update(content)
                _write_at(file.fileno(), content, place)
                look(name, piece)
                place += len(content)
            return hasher.hexdigest()

        digests = dict(zip(order, pool.map(store, order, places), strict=True))
        prefix, header = seal(digests)
        file.write(beginning(prefix, header, digests))
    return prefix


def _write_at(descriptor: int, content: memoryview, place: int) -> None:
    """Writes bytes at a place of a file; several threads may write at once."""
    done = 0
    while done < len(content):
        done += os.pwrite(descriptor, content[done : done + WRITTEN], place + done)


@contextmanager
def _writing(path: Path, temporary: Path) -> Iterator[IO[bytes]]:
    try:
        with open(temporary, "wb", buffering=2**20) as file:
            yield file
    except OSError as error:
        raise OutputError("cannot write", where=path, got=error.strerror or str(error)) from error


def _data_order(shapes: Shapes) -> list[str]:
    """The order of the values in a file: the widest kinds first, so that each lies at a multiple of its width."""
    return sorted(shapes, key=lambda name: -WIDTHS[shapes[name][0]])


def _size(kind: str, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * WIDTHS[kind]


def _beginning(shapes: Shapes, header: Mapping[str, Any], digests: Mapping[str, str]) -> bytes:
    """What stands in a safetensors file before the values."""
    words = {kind: word for word, kind in KINDS.items()}
    place, entries = 0, {}
    for name in _data_order(shapes):
        kind, shape = shapes[name]
        size = _size(kind, shape)
        entries[name] = {"dtype": words[kind], "shape": list(shape), "data_offsets": [place, place + size]}
        place += size
    content = json.dumps({"__metadata__": {METADATA_KEY: _sealed(header, digests)}, **entries}).encode()
    content += b" " * (-len(content) % 8)
    return struct.pack("<Q", len(content)) + content


def kind_of(tensor: "Tensor") -> str:
    """The kind of a tensor, such as `float32`."""
    return _kind(tensor.dtype)


@functools.cache
def _kind(dtype: "torch.dtype") -> str:
    return str(dtype).removeprefix("torch.")


def _content(tensor: "Tensor") -> "numpy.ndarray":
    """The values of a tensor, one after the other in memory."""
    import numpy
    import torch

    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        # numpy has no such kind; its bytes are the same under another name.
        tensor = tensor.view(torch.int16)
    return numpy.ascontiguousarray(tensor.numpy())


def _bytes(tensor: "Tensor") -> memoryview:
    return memoryview(_content(tensor).reshape(-1).view("uint8"))


def read_header(path: Path | str) -> tuple[dict[str, Any], dict[str, str]]:
    """The JSON header of a file of `write_tensors` and the digest of each tensor; no tensor is read.

    Raises:
        MissingDataError: if there is no such file.
        CorruptFileError: if it is not a whole file of ours.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise MissingDataError("no such file", where=path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata, names = file.metadata() or {}, set(file.keys())
    except (SafetensorError, OSError, ValueError) as error:
        raise _corrupt(path, f"not a readable safetensors file ({error})") from error
    return unsealed(path, metadata, names)


def unsealed(path: Path, metadata: Mapping[str, str], names: Iterable[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Like `read_header`, of a safetensors file whose metadata and names of tensors have been read.

    Raises:
        CorruptFileError: if it is not a whole file of ours.
    """
    if METADATA_KEY not in metadata:
        raise CorruptFileError(
            "not a file of weightgen",
            where=path,
            got="a safetensors file without our header",
            remedy="read it into a zoo: weightgen zoo ingest FILE --zoo FOLDER; or wrap its tensors in a Checkpoint",
        )
    try:
        sealed = json.loads(metadata[METADATA_KEY])
        body = sealed["body"]
        if hashlib.sha256(body.encode()).hexdigest() != sealed["digest"]:
            raise _corrupt(path, "its header does not match its digest")
        content = json.loads(body)
        version, header, digests = content["version"], content["header"], content["digests"]
        if not (isinstance(version, int) and isinstance(header, dict) and isinstance(digests, dict)):
            raise TypeError("version, header or digests of the wrong kind")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _corrupt(path, "its header cannot be read") from error
    if version > FORMAT_VERSION:
        raise CorruptFileError(
            "written by a newer weightgen",
            where=path,
            got=f"format {version}",
            expected=f"at most {FORMAT_VERSION}",
            remedy="upgrade weightgen",
        )
    if set(names) != set(digests):
        raise _corrupt(path, "its tensors are not those that its header names")
    return header, digests


KINDS = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
"""The kinds of tensor as safetensors writes them and as torch calls them."""

WIDTHS = {kind: 1 if kind == "bool" else int("".join(filter(str.isdigit, kind))) // 8 for kind in KINDS.values()}
"""Bytes of one value of each kind."""


def read_shapes(path: Path | str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name → (kind such as `float32`, shape) of every tensor of a safetensors file; no tensor is read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118, not a mapping
            return {
                name: (KINDS.get(str(part.get_dtype()), str(part.get_dtype())), tuple(part.get_shape()))
                for name, part in slices.items()
            }
    except (SafetensorError, OSError, ValueError) as error:
        raise _corrupt(Path(path), f"not a readable safetensors file ({error})") from error


def read_tensor(path: Path | str, name: str, digest: str) -> "Tensor":
    """One tensor, checked against its digest."""
    return _read(Path(path), {name: digest})[name]


def read_tensors(path: Path | str) -> tuple[dict[str, Any], dict[str, "Tensor"]]:
    """The header and all tensors of a file of `write_tensors`, each checked against its digest."""
    header, digests = read_header(path)
    return header, _read(Path(path), digests)


def _read(path: Path, digests: Mapping[str, str]) -> dict[str, "Tensor"]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in digests}
    except (SafetensorError, OSError) as error:
        raise _corrupt(path, str(error)) from error
    for name, tensor in tensors.items():
        if tensor_digest(tensor) != digests[name]:
            raise _corrupt(path, f"the tensor '{name}' does not match its digest")
    return tensors


def _corrupt(path: Path, what: str) -> CorruptFileError:
    return CorruptFileError(
        f"the file is damaged: {what}", where=path, remedy="fetch or make it again; nothing was loaded from it"
    )
