"""Blobs: safetensors files that each hold many small networks or one big one."""

import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from weightgen.checkpoint import Card, Checkpoint
from weightgen.storage import WIDTHS, pack_tensors, stream_tensors
from weightgen.zoo.summary import Summary, embedding, summarise

if TYPE_CHECKING:
    from torch import Tensor

BLOB_NETWORKS = 512
BLOB_BYTES = 256 * 2**20
"""A blob takes networks until it holds this many or this much."""

BIG_BYTES = 64 * 2**20
"""A network of this size is written tensor by tensor, to a blob of its own."""

NO_ID = "0" * 32


@dataclass(frozen=True)
class Values:
    """What the catalogue keeps of one tensor."""

    name: str
    kind: str
    shape: tuple[int, ...]
    norm: float | None
    zeros: int
    non_finite: int
    digest: str


@dataclass(frozen=True)
class Member:
    """What the catalogue keeps of one network of a blob; no tensors.

    Args:
        vector: its place in the space `statistics-v1`.
    """

    id: str
    name: str
    architecture: str
    family: str
    parameters: int
    card: Card
    tensors: list[Values]
    vector: numpy.ndarray


@dataclass(frozen=True)
class Blob:
    """A file that was written, and what the catalogue must know of it."""

    name: str
    bytes: int
    members: list[Member]


class Packer:
    """Writes networks to blobs, many to a file, and forgets their tensors once they are written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blobs: list[Blob] = []
        self.members: list[Member] = []
        self.keys: set[str] = set()
        self.tensors: dict[str, Tensor] = {}
        self.bytes = 0

    def add(self, key: str, name: str, checkpoint: Checkpoint) -> None:
        """Adds a network, unless the blob has it already; `key` is its id."""
        if key in self.keys:
            return
        self.keys.add(key)
        summaries = {}
        for each in checkpoint.shapes:
            tensor = checkpoint.read(each)
            summaries[each] = summarise(tensor)
            self.tensors[f"{key}/{each}"] = tensor
            self.bytes += tensor.nbytes
        digests = {each: checkpoint.digest(each) for each in checkpoint.shapes}
        self.members.append(_member(key, name, checkpoint, digests, summaries))
        if len(self.members) >= BLOB_NETWORKS or self.bytes >= BLOB_BYTES:
            self._flush()

    def add_big(self, name: str, checkpoint: Checkpoint) -> str:
        """Adds a network of any size, holding one tensor at a time; gives its id, which is known when it is written."""
        summaries: dict[str, Summary] = {}

        def look(each: str, tensor: "Tensor") -> None:
            summaries[each] = summarise(tensor)

        def header(key: str) -> dict[str, Any]:
            return _header([(key, name, str(checkpoint.architecture), checkpoint.card, list(checkpoint.shapes))])

        digests: dict[str, str] = {}

        def seal(found: dict[str, str]) -> tuple[str, dict[str, Any]]:
            digests.update(found)
            key = checkpoint.identify(found)
            return key, header(key)

        temporary = self.folder / f".{os.getpid()}-{hashlib.blake2b(name.encode(), digest_size=16).hexdigest()}.big"
        key = stream_tensors(temporary, checkpoint.shapes, checkpoint.read, look, (NO_ID, header(NO_ID)), seal)
        blob = _blob_name(header(key))
        temporary.replace(self.folder / blob)
        self.blobs.append(Blob(blob, size_of(checkpoint), [_member(key, name, checkpoint, digests, summaries)]))
        return key

    def finish(self) -> list[Blob]:
        """Everything that was written; the Packer is then empty."""
        if self.members:
            self._flush()
        blobs, self.blobs = self.blobs, []
        return blobs

    def _flush(self) -> None:
        header = _header(
            [
                (member.id, member.name, member.architecture, member.card, [value.name for value in member.tensors])
                for member in self.members
            ]
        )
        name = _blob_name(header)
        digests = {f"{member.id}/{value.name}": value.digest for member in self.members for value in member.tensors}
        pack_tensors(self.folder / name, self.tensors, digests, header)
        self.blobs.append(Blob(name, self.bytes, self.members))
        self.members, self.keys, self.tensors, self.bytes = [], set(), {}, 0


def is_big(checkpoint: Checkpoint) -> bool:
    """Whether a network gets a blob of its own."""
    return size_of(checkpoint) >= BIG_BYTES


def size_of(checkpoint: Checkpoint) -> int:
    """Bytes of all tensors of a network, which are not read."""
    return sum(math.prod(shape) * WIDTHS[kind] for kind, shape in checkpoint.shapes.values())


def _header(members: list[tuple[str, str, str, Card, list[str]]]) -> dict[str, Any]:
    """What a blob says of itself: it repeats the catalogue, so that a lost one could be made again from the blobs."""
    networks = {}
    for key, name, architecture, card, order in members:
        networks[key] = {"name": name, "architecture": architecture, "card": card.to_json()}
        if architecture.startswith("unknown?"):
            networks[key]["order"] = order
    return {"kind": "zoo blob", "networks": networks}


def _blob_name(header: dict[str, Any]) -> str:
    content = json.dumps(header, sort_keys=True).encode()
    return hashlib.blake2b(content, digest_size=16).hexdigest() + ".safetensors"


def _member(
    key: str, name: str, checkpoint: Checkpoint, digests: dict[str, str], summaries: dict[str, Summary]
) -> Member:
    architecture = checkpoint.architecture
    values = [
        Values(each, kind, shape, one.norm, one.zeros, one.non_finite, digests[each])
        for each, (kind, shape) in checkpoint.shapes.items()
        for one in [summaries[each]]
    ]
    vector = embedding({each: one.profile for each, one in summaries.items()})
    return Member(
        key, name, str(architecture), architecture.family, checkpoint.parameters, checkpoint.card, values, vector
    )
