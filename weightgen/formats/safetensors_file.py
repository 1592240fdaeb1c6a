"""Safetensors files: our own checkpoints, the blobs of a zoo, and everybody else's."""

import functools
import json
import mmap
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy

from weightgen.architecture import Architecture
from weightgen.checkpoint import KIND, Card, Checkpoint
from weightgen.errors import CorruptFileError
from weightgen.formats.format import Network, damaged, register
from weightgen.formats.tensors import Kinds, Pieces, facts, from_buffer, made_with, network, once, read_into
from weightgen.storage import KINDS, METADATA_KEY, PIECE, WIDTHS, tensor_digest, unsealed

if TYPE_CHECKING:
    from torch import Tensor

MAXIMUM_HEADER = 64 * 2**20
"""A header of this many bytes names half a million tensors; a longer one is refused before it is parsed."""

LARGE = 2**20
"""Bytes from which a tensor is read and not mapped: what was mapped stays as long as any tensor of the file."""


def _recognises(path: Path, head: bytes) -> bool:
    if len(head) < 10 or head[8:9] != b"{":
        return False
    (length,) = struct.unpack("<Q", head[:8])
    return 2 <= length <= path.stat().st_size - 8


@register("safetensors", "safetensors file", _recognises)
def read(path: Path) -> list[Network]:
    """One network, or all networks of a zoo's blob."""
    kinds, metadata, tensor, pieces = opened(path)
    if METADATA_KEY in metadata:
        ours, digests = unsealed(path, metadata, kinds)
        if ours.get("kind") == "zoo blob":
            return _blob(path, ours.get("networks"), kinds, digests, tensor)
        if ours.get("kind") == KIND:
            checkpoint = Checkpoint.load(path)
            return [Network("", checkpoint)]
    settings = facts({name: value for name, value in metadata.items() if name not in ("format", METADATA_KEY)})
    card = Card(origin="ingested", hyperparameters=settings, made_with=made_with("safetensors", path))
    return [Network("", network(kinds, tensor, card, path, pieces=pieces))]


def opened(path: Path) -> tuple[Kinds, dict[str, str], Callable[[str], "Tensor"], Pieces]:
    """Name → (kind, shape) in the order of the data, the metadata, and the functions that read one tensor.

    Offsets, overlaps and sizes are checked before anything is read.

    Raises:
        CorruptFileError: if the header is too long, or is not that of this file.
    """
    from safetensors import SafetensorError, safe_open

    with open(path, "rb") as file:
        start = file.read(8)
        if len(start) < 8 or struct.unpack("<Q", start)[0] > MAXIMUM_HEADER:
            raise damaged(path, f"its header is longer than {MAXIMUM_HEADER:,} bytes", "safetensors file")
        content = file.read(struct.unpack("<Q", start)[0])
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        found = json.loads(content, object_pairs_hook=once)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise damaged(path, str(error), "safetensors file") from error
    found.pop("__metadata__", None)
    ordered = sorted(found.items(), key=lambda item: item[1]["data_offsets"])
    kinds = {name: (KINDS.get(one["dtype"], one["dtype"]), tuple(one["shape"])) for name, one in ordered}
    begin = 8 + len(content)
    places = {name: one["data_offsets"] for name, one in ordered}
    maps: list[mmap.mmap] = []

    def tensor(name: str) -> "Tensor":
        kind, shape = kinds[name]
        first, last = (begin + place for place in places[name])
        if last - first >= LARGE or first % WIDTHS[kind]:
            with open(path, "rb") as opened:
                opened.seek(first)
                return from_buffer(_read_all(path, opened, last - first), kind, shape)
        if not maps:
            # Private pages: what a caller does to a tensor stays with the caller.
            with open(path, "rb") as opened:
                maps.append(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY))
        return from_buffer(maps[0], kind, shape, first)

    def pieces(name: str) -> Iterator["Tensor"]:
        kind, shape = kinds[name]
        first, last = (begin + place for place in places[name])
        with open(path, "rb") as opened:
            opened.seek(first)
            # A tensor without values has one piece, which is empty.
            for place in range(first, max(last, first + 1), PIECE):
                content = _read_all(path, opened, min(PIECE, last - place))
                yield from_buffer(content, kind, (len(content) // WIDTHS[kind],))

    return kinds, metadata, tensor, pieces


def _read_all(path: Path, file: IO[bytes], size: int) -> numpy.ndarray:
    content = read_into(file, size)
    if len(content) != size:
        raise damaged(path, "it has become shorter", "safetensors file")
    return content


def _blob(
    path: Path, members: object, kinds: Kinds, digests: dict[str, str], tensor: Callable[[str], "Tensor"]
) -> list[Network]:
    if not isinstance(members, dict):
        raise CorruptFileError("a zoo blob that names no networks", where=path)
    grouped: dict[str, dict[str, tuple[str, tuple[int, ...]]]] = {key: {} for key in members}
    for name, kind in kinds.items():
        key, _, rest = name.partition("/")
        grouped[key][rest] = kind
    found = []
    recipe = functools.cache(Architecture.parse)
    for key, entry in members.items():
        order = entry.get("order", list(grouped[key]))
        checkpoint = Checkpoint.lazy(
            recipe(entry["architecture"]),
            {name: grouped[key][name] for name in order},
            {name: digests[f"{key}/{name}"] for name in order},
            lambda name, digest, key=key: _checked(path, tensor(f"{key}/{name}"), digest),
            Card.from_json(entry["card"]),
        )
        found.append(Network(str(entry["name"]), checkpoint))
    return found


def _checked(path: Path, tensor: "Tensor", digest: str) -> "Tensor":
    if tensor_digest(tensor) != digest:
        raise damaged(path, "a tensor does not match its digest", "safetensors file")
    return tensor
