"""Checkpoints cut into several files, with an index that says which tensor lies where."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from weightgen.checkpoint import Card
from weightgen.errors import CorruptFileError, MissingDataError
from weightgen.formats.format import Network, register
from weightgen.formats.safetensors_file import opened
from weightgen.formats.tensors import Kinds, Pieces, facts, made_with, network

if TYPE_CHECKING:
    from torch import Tensor

MAXIMUM_INDEX = 64 * 2**20


def _recognises(path: Path, head: bytes) -> bool:
    return head.lstrip()[:1] == b"{" and path.stat().st_size <= MAXIMUM_INDEX and "weight_map" in index(path)


@register("sharded", "index of shards", _recognises)
def read(path: Path) -> list[Network]:
    """The one network of an index and its shards."""
    kinds, read_one, pieces = shards(path)
    settings = facts(index(path).get("metadata") or {})
    card = Card(origin="ingested", hyperparameters=settings, made_with=made_with("sharded", path))
    return [Network("", network(kinds, read_one, card, path, pieces=pieces))]


def index(path: Path) -> dict:
    """The content of an index; nothing for a file that is none."""
    found = json.loads(path.read_bytes()) if path.stat().st_size <= MAXIMUM_INDEX else {}
    return found if isinstance(found, dict) else {}


def members(path: Path) -> set[str]:
    """The names of the shards, every one a plain name beside the index.

    Raises:
        CorruptFileError: if one is anything else.
    """
    weight_map = index(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CorruptFileError("an index that names no tensors", where=path)
    names = set(weight_map.values())
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"[\w.+-]+", name) or name.startswith("."):
            raise CorruptFileError(
                "an index names a file outside its folder", where=path, got=repr(name)[:80], expected="a plain name"
            )
    return names


def shards(path: Path) -> tuple[Kinds, Callable[[str], "Tensor"], Pieces | None]:
    """Kinds of all tensors in the order of the index, and the functions that read one."""
    from weightgen.formats.torch_file import tensors_of

    found = {}
    for name in sorted(members(path)):
        shard = path.parent / name
        if not shard.is_file():
            raise MissingDataError("a shard is missing", where=path, got=name, remedy="fetch it too")
        with open(shard, "rb") as file:
            is_safe = file.read(9)[8:] == b"{"
        if is_safe:
            kinds, _, tensor, pieces = opened(shard)
            found[name] = kinds, tensor, pieces
        else:
            found[name] = *tensors_of(shard), None
    weight_map = index(path)["weight_map"]
    for name, shard in weight_map.items():
        if name not in found[shard][0]:
            raise CorruptFileError(f"the tensor '{name}' is not in its shard", where=path, got=shard)
    kinds = {name: found[shard][0][name] for name, shard in weight_map.items()}
    pieces = (lambda name: found[weight_map[name]][2](name)) if all(one[2] for one in found.values()) else None
    return kinds, lambda name: found[weight_map[name]][1](name), pieces
