"""Files of `torch.save`: zip archives and the older bare pickles. No pickle is run; see `pickles.py`."""

import functools
import io
import math
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from weightgen.errors import CorruptFileError
from weightgen.formats.format import Network, damaged, register
from weightgen.formats.pickles import Call, Name, Storage, describe
from weightgen.formats.settings import read_yaml
from weightgen.formats.tensors import Kinds, facts, from_buffer, made_with, once, read_into

if TYPE_CHECKING:
    from torch import Tensor

LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How a file of `torch.save` before torch 1.6 begins: its magic number as a pickle of its own."""

CONFIGS = ("config.yml", "config.yaml", "hparams.yaml")
"""Settings that stand beside a file; JSON is YAML, but a `config.json` belongs to a folder of its own format."""

MAXIMUM_PICKLE = 256 * 2**20

TYPES = {
    "Double": ("float64", 8), "Float": ("float32", 4), "Half": ("float16", 2), "BFloat16": ("bfloat16", 2),
    "Long": ("int64", 8), "Int": ("int32", 4), "Short": ("int16", 2), "Char": ("int8", 1), "Byte": ("uint8", 1),
    "Bool": ("bool", 1),
}  # fmt: skip
"""The names of storages, without their ending, and what they hold."""

Opener = Callable[[], IO[bytes]]
"""Opens the file, or the part of an archive that is one."""


@dataclass(frozen=True)
class Block:
    """Where the values of a storage lie."""

    offset: int
    bytes: int


@dataclass(frozen=True)
class Stored:
    """A tensor as the pickle describes it, its values still on disk.

    Args:
        kind: such as `float32`.
        first: the first value within its storage.
        key: of its storage.
        length: values that the pickle says the storage has.
    """

    kind: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    first: int
    key: str
    length: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def _recognises(path: Path, head: bytes) -> bool:
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return True
    return head[:2] == b"PK" and any(name.endswith("/data.pkl") for name in zipfile.ZipFile(path).namelist())


@register("torch", "torch file", _recognises)
def read(path: Path) -> list[Network]:
    """Every state dict of the file, without the optimiser's; scalars beside it and a config in the folder are kept."""
    beside = next((path.parent / name for name in CONFIGS if (path.parent / name).is_file()), None)
    settings = facts(read_yaml(beside)) if beside else {}
    found = networks(path, functools.partial(open, path, "rb"), "torch")
    return [
        Network(one.part, one.checkpoint.replace_card(
            hyperparameters={**settings, **one.checkpoint.card.hyperparameters}
        ))
        for one in found
    ]  # fmt: skip


def networks(path: Path, opener: Opener, name: str) -> list[Network]:
    """Every state dict of a torch file that `opener` opens."""
    from weightgen.formats.state_dicts import found_in

    content, blocks = contents(path, opener)

    def read_one(stored: Stored) -> "Tensor":
        return _tensor(path, opener, blocks, stored)

    return found_in(content, read_one, path, made_with(name, path))


def tensors_of(path: Path) -> tuple[Kinds, Callable[[str], "Tensor"]]:
    """Kinds and reader of a file that holds one state dict and nothing else, such as a shard."""
    (one,) = read(path)
    return one.checkpoint.shapes, one.checkpoint.read


def contents(path: Path, opener: Opener) -> tuple[Any, dict[str, Block]]:
    """What the file describes, with a `Stored` for each tensor, and where each storage lies.

    Raises:
        CorruptFileError: if the file is damaged, or its tensors reach beyond what it holds.
    """
    with opener() as file:
        is_zip = file.read(2) == b"PK"
        file.seek(0)
        described, blocks = _zip(path, file) if is_zip else _legacy(path, file)
    return _resolved(described, blocks, path), blocks


def _zip(path: Path, file: IO[bytes]) -> tuple[Any, dict[str, Block]]:
    with zipfile.ZipFile(file) as archive:
        members = once((info.filename, info) for info in archive.infolist())
        (root,) = {name.removesuffix("data.pkl") for name in members if name.endswith("/data.pkl")}
        if f"{root}constants.pkl" in members:
            raise CorruptFileError(
                "a compiled TorchScript program", where=path, remedy="save the module's state_dict() instead"
            )
        order = members.get(f"{root}byteorder")
        if order is not None and archive.read(order)[:8] != b"little":
            raise CorruptFileError("written on a big-endian machine", where=path)
        end = file.seek(0, io.SEEK_END)
        blocks = {}
        for name, info in members.items():
            # torch stores its records as they are; a packed one could be anything when it is unpacked.
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise damaged(path, f"its member {name!r} is packed", "torch file")
            if name.startswith(f"{root}data/"):
                file.seek(info.header_offset)
                local = file.read(30)
                start = info.header_offset + 30 + sum(struct.unpack("<HH", local[26:30]))
                if local[:4] != b"PK\x03\x04" or start + info.file_size > end:
                    raise damaged(path, f"its member {name!r} is not all there", "torch file")
                blocks[name.removeprefix(f"{root}data/")] = Block(start, info.file_size)
        pickle = members[f"{root}data.pkl"]
        if pickle.file_size > min(MAXIMUM_PICKLE, end):
            raise damaged(path, f"its pickle has {pickle.file_size:,} bytes", "torch file")
        return describe(io.BytesIO(archive.read(pickle))), blocks


def _legacy(path: Path, file: IO[bytes]) -> tuple[Any, dict[str, Block]]:
    if file.read(len(LEGACY)) != LEGACY:
        raise CorruptFileError(
            "a pickle that torch did not write", where=path, remedy="pickles are never run; save it as safetensors"
        )
    protocol, system, described, keys = (describe(file) for _ in range(4))
    if protocol != 1001 or not isinstance(keys, list):
        raise damaged(path, f"protocol {protocol}, storages {type(keys).__name__}", "torch file")
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise CorruptFileError("written on a big-endian machine", where=path)
    sizes = {key: size for key, size in _storages(described)}
    place = file.tell()
    end = file.seek(0, io.SEEK_END)
    blocks = {}
    for key in keys:
        # Before its values stands how many there are.
        file.seek(place)
        (length,) = struct.unpack("<q", file.read(8))
        size = length * sizes.get(str(key), 0)
        if length < 0 or (not size and length) or place + 8 + size > end:
            raise damaged(path, f"the storage {key!r} is not all there", "torch file")
        blocks[str(key)] = Block(place + 8, size)
        place += 8 + size
    return described, blocks


def _storages(value: Any) -> list[tuple[str, int]]:
    """Key and bytes a value of every storage that a description refers to."""
    found, seen, waiting = [], set(), [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Storage):
            key, _, width, _ = _storage(one)
            found.append((key, width))
        elif isinstance(one, (dict, list, tuple, Call)) and id(one) not in seen:
            seen.add(id(one))
            waiting.extend(_parts(one))
    return found


def _parts(value: Any) -> list:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, Call):
        return [value.arguments, value.state, value.items, value.values]
    return list(value)


def _storage(storage: Storage) -> tuple[str, str, int, int]:
    """Key, kind, bytes a value and length of a storage."""
    identity = storage.identity
    word, kind, key, _, length = identity[:5]
    name = kind.path.rpartition(".")[2].removesuffix("Storage") if isinstance(kind, Name) else ""
    if word != "storage" or name not in (*TYPES, "Untyped") or not isinstance(length, int) or length < 0:
        raise ValueError(f"the storage {key!r} is of an unknown kind {kind}")
    return (str(key), *TYPES.get(name, ("untyped", 1)), length)


REBUILDERS = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3", "torch._utils._rebuild_tensor")


def _resolved(value: Any, blocks: dict[str, Block], path: Path) -> Any:
    """The description with a `Stored` in the place of every tensor."""
    done: dict[int, Any] = {}

    def resolve(one: Any, depth: int) -> Any:
        if depth > 100:
            raise damaged(path, "it is nested too deeply", "torch file")
        if not isinstance(one, (dict, list, tuple, Call)):
            return one
        if id(one) not in done:
            done[id(one)] = None  # a structure that holds itself is cut there
            done[id(one)] = made(one, depth + 1)
        return done[id(one)]

    def made(one: Any, depth: int) -> Any:
        if isinstance(one, dict):
            return {key: resolve(item, depth) for key, item in one.items()}
        if isinstance(one, (list, tuple)):
            return type(one)(resolve(item, depth) for item in one)
        if one.name in REBUILDERS:
            return _stored(one, blocks)
        if one.name.startswith(("torch._utils._rebuild_parameter", "torch._tensor._rebuild_from_type")):
            wrapped = [resolve(item, depth) for item in one.arguments]
            inner = [item for each in wrapped for item in (each if isinstance(each, tuple) else (each,))]
            return next((item for item in inner if isinstance(item, Stored)), None)
        return Call(one.name, (), resolve(one.state, depth), resolve(one.items, depth))

    return resolve(value, 0)


def _stored(call: Call, blocks: dict[str, Block]) -> Stored:
    """A tensor, after every place that it reaches was found to lie within its storage."""
    storage, first, shape, stride = call.arguments[:4]
    key, kind, width, length = _storage(storage)
    if kind == "untyped":
        named = str(getattr(call.arguments[6], "path", "")).removeprefix("torch.")
        kind, width = next(each for each in TYPES.values() if each[0] == named)
        length //= width
    numbers = (first, *shape, *stride)
    if len(shape) != len(stride) or not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise ValueError("a tensor of an impossible shape")
    stored = Stored(kind, tuple(shape), tuple(stride), first, key, length)
    last = first + sum((size - 1) * step for size, step in zip(shape, stride, strict=True)) if stored.size else first
    within = min(length, blocks[key].bytes // width)
    if stored.size > within or (stored.size and last >= within):
        raise ValueError(f"a tensor of shape {list(shape)} in a storage of {within:,} values")
    return stored


def _tensor(path: Path, opener: Opener, blocks: dict[str, Block], stored: Stored) -> "Tensor":
    import torch

    dtype = getattr(torch, stored.kind)
    if not stored.size:
        return torch.empty(stored.shape, dtype=dtype)
    width = dtype.itemsize
    reach = 1 + sum((size - 1) * step for size, step in zip(stored.shape, stored.stride, strict=True))
    with opener() as file:
        file.seek(blocks[stored.key].offset + stored.first * width)
        content = read_into(file, reach * width)
    if len(content) != reach * width:
        raise damaged(path, "it has become shorter", "torch file")
    flat = from_buffer(content, stored.kind, (reach,))
    return flat.as_strided(stored.shape, stored.stride).contiguous()
