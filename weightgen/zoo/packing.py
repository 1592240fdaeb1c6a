"""Blobs: safetensors files that each hold many small networks or one big one."""

import functools
import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy

from weightgen.checkpoint import Card, Checkpoint
from weightgen.storage import WIDTHS, pack_tensors, stream_tensors
from weightgen.zoo.summary import Figures, Summary, embeddings, summaries

if TYPE_CHECKING:
    from torch import Tensor

BLOB_NETWORKS = 512
BLOB_BYTES = 256 * 2**20
"""A blob takes networks until it holds this many or this much."""

BIG_BYTES = 64 * 2**20
"""A network of this size is written piece by piece, to a blob of its own."""

NO_ID = "0" * 32


class Values(NamedTuple):
    """What the catalogue keeps of one tensor, in the order of its columns; the shape is JSON."""

    name: str
    kind: str
    shape: str
    norm: float | None
    digest: str
    zeros: int
    non_finite: int


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
        self.networks: dict[str, tuple[str, Checkpoint]] = {}
        self.tensors: dict[str, Tensor] = {}
        self.bytes = 0

    def add(self, key: str, name: str, checkpoint: Checkpoint) -> None:
        """Adds a network, unless the blob has it already; `key` is its id."""
        if key in self.networks:
            return
        self.networks[key] = name, checkpoint
        for each in checkpoint.shapes:
            tensor = checkpoint.read(each)
            self.tensors[f"{key}/{each}"] = tensor
            self.bytes += tensor.nbytes
        if len(self.networks) >= BLOB_NETWORKS or self.bytes >= BLOB_BYTES:
            self._flush()

    def add_big(self, name: str, checkpoint: Checkpoint) -> str:
        """Adds a network of any size, holding a few pieces at a time; gives its id, known when it is written."""
        figures = {each: Figures(math.prod(shape)) for each, (_, shape) in checkpoint.shapes.items()}

        def look(each: str, part: "Tensor") -> None:
            figures[each].add(part)

        def header(key: str) -> dict[str, Any]:
            return _header([(key, name, str(checkpoint.architecture), checkpoint.card, list(checkpoint.shapes))])

        digests: dict[str, str] = {}

        def seal(made: dict[str, str]) -> tuple[str, dict[str, Any]]:
            digests.update(made)
            key = checkpoint.identify(made)
            return key, header(key)

        temporary = self.folder / f".{os.getpid()}-{hashlib.blake2b(name.encode(), digest_size=16).hexdigest()}.big"
        key = stream_tensors(temporary, checkpoint.shapes, checkpoint.pieces, look, (NO_ID, header(NO_ID)), seal)
        blob = _blob_name(header(key))
        temporary.replace(self.folder / blob)
        found = {each: one for each, made in figures.items() for one in made.summaries()}
        members = _members({key: (name, checkpoint)}, [digests], [found])
        self.blobs.append(Blob(blob, size_of(checkpoint), members))
        return key

    def finish(self) -> list[Blob]:
        """Everything that was written; the Packer is then empty."""
        if self.networks:
            self._flush()
        blobs, self.blobs = self.blobs, []
        return blobs

    def _flush(self) -> None:
        header = _header(
            [
                (key, name, str(checkpoint.architecture), checkpoint.card, list(checkpoint.shapes))
                for key, (name, checkpoint) in self.networks.items()
            ]
        )
        blob = _blob_name(header)
        digests = [
            {each: checkpoint.digest(each) for each in checkpoint.shapes} for _, checkpoint in self.networks.values()
        ]
        prefixed = {
            f"{key}/{each}": digest
            for key, made in zip(self.networks, digests, strict=True)
            for each, digest in made.items()
        }
        pack_tensors(self.folder / blob, self.tensors, prefixed, header)
        # All tensors of a blob at once: most are as small as they are many.
        figures = iter(summaries(list(self.tensors.values())))
        found = [dict(zip(made, figures, strict=False)) for made in digests]
        self.blobs.append(Blob(blob, self.bytes, _members(self.networks, digests, found)))
        self.networks, self.tensors, self.bytes = {}, {}, 0


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


def _members(
    networks: Mapping[str, tuple[str, Checkpoint]], digests: list[dict[str, str]], found: list[dict[str, Summary]]
) -> list[Member]:
    """What the catalogue keeps of networks: id → name and Checkpoint; and of each the digests and figures by tensor."""
    vectors = embeddings([{each: one.profile for each, one in figures.items()} for figures in found])
    return [
        Member(
            key, name, str(checkpoint.architecture), checkpoint.architecture.family, checkpoint.parameters,
            checkpoint.card, _values(checkpoint, made, figures), vector,
        )
        for (key, (name, checkpoint)), made, figures, vector in zip(
            networks.items(), digests, found, vectors, strict=True
        )
    ]  # fmt: skip


def _values(checkpoint: Checkpoint, digests: dict[str, str], found: dict[str, Summary]) -> list[Values]:
    return [
        Values(each, kind, _shape(shape), one.norm, digests[each], one.zeros, one.non_finite)
        for each, (kind, shape) in checkpoint.shapes.items()
        for one in [found[each]]
    ]


@functools.lru_cache(maxsize=4096)
def _shape(shape: tuple[int, ...]) -> str:
    return json.dumps(shape)
