"""Blobs: safetensors files that each hold many small networks, and their entry in the catalogue."""

import hashlib
import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightgen.checkpoint import Checkpoint
from weightgen.errors import CorruptFileError, DuplicateNameError
from weightgen.storage import write_tensors

if TYPE_CHECKING:
    from torch import Tensor

BLOB_NETWORKS = 512
BLOB_BYTES = 256 * 2**20
"""A blob takes networks until it holds this many or this much."""


@dataclass(frozen=True)
class Member:
    """One network of a blob: its Checkpoint has shapes, digests and Card, but no tensors any more."""

    id: str
    name: str
    checkpoint: Checkpoint
    norms: list[float | None]


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
        self.tensors: dict[str, Tensor] = {}
        self.bytes = 0

    def add(self, key: str, name: str, checkpoint: Checkpoint) -> None:
        tensors = checkpoint.state_dict()
        norms = [_norm(tensor) for tensor in tensors.values()]
        # What is kept for the catalogue: a Checkpoint that knows its shapes and digests but holds no tensor.
        digests = {each: checkpoint.digest(each) for each in tensors}
        hollow = Checkpoint.lazy(checkpoint.architecture, checkpoint.shapes, digests, _no_tensor, checkpoint.card)
        self.members.append(Member(key, name, hollow, norms))
        self.tensors.update({f"{key}/{each}": tensor for each, tensor in tensors.items()})
        self.bytes += sum(tensor.nbytes for tensor in tensors.values())
        if len(self.members) >= BLOB_NETWORKS or self.bytes >= BLOB_BYTES:
            self._flush()

    def finish(self) -> list[Blob]:
        if self.members:
            self._flush()
        return self.blobs

    def _flush(self) -> None:
        # The header repeats the catalogue, so that a lost catalogue could be made again from the blobs.
        header = {
            "kind": "zoo blob",
            "networks": {
                member.id: {
                    "name": member.name,
                    "architecture": str(member.checkpoint.architecture),
                    "card": member.checkpoint.card.to_json(),
                }
                for member in self.members
            },
        }
        content = json.dumps(header, sort_keys=True).encode()
        name = hashlib.blake2b(content, digest_size=16).hexdigest() + ".safetensors"
        write_tensors(self.folder / name, self.tensors, header)
        self.blobs.append(Blob(name, self.bytes, self.members))
        self.members, self.tensors, self.bytes = [], {}, 0


def insert(connection: sqlite3.Connection, blob: Blob) -> None:
    """Enters the networks of a blob in the catalogue, all but those it knows.

    Raises:
        DuplicateNameError: if a name belongs to another network.
    """
    # Another process may have written the same networks, or the same blob, since we looked.
    connection.execute("INSERT OR IGNORE INTO blobs VALUES (?, ?, ?)", (blob.name, blob.bytes, len(blob.members)))
    for member in blob.members:
        card = member.checkpoint.card
        if connection.execute("SELECT 1 FROM models WHERE id = ?", (member.id,)).fetchone():
            continue
        if connection.execute("SELECT 1 FROM models WHERE name = ?", (member.name,)).fetchone():
            raise DuplicateNameError(f"the name '{member.name}' belongs to another network", remedy="choose another")
        number = connection.execute(
            "INSERT INTO models (id, name, architecture, family, parameters, task, origin, run, split, card, blob)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                member.id, member.name, str(member.checkpoint.architecture), member.checkpoint.architecture.family,
                member.checkpoint.parameters, card.task, card.origin, card.run, card.split,
                json.dumps(card.to_json(), sort_keys=True), blob.name,
            ),
        ).lastrowid  # fmt: skip
        shapes = member.checkpoint.shapes.items()
        connection.executemany(
            "INSERT INTO tensors VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (number, position, name, kind, json.dumps(shape), norm, member.checkpoint.digest(name))
                for position, ((name, (kind, shape)), norm) in enumerate(zip(shapes, member.norms, strict=True))
            ],
        )
        connection.executemany(
            "INSERT OR IGNORE INTO metrics VALUES (?, ?, ?, ?, ?, ?)",
            [
                (number, metric.name, metric.split, metric.digest, position, metric.value)
                for position, metric in enumerate(card.metrics)
            ],
        )
        connection.executemany(
            "INSERT INTO hyperparameters VALUES (?, ?, ?)",
            [(number, name, _storable(value)) for name, value in card.hyperparameters.items()],
        )
        connection.executemany("INSERT OR IGNORE INTO tags VALUES (?, ?)", [(number, tag) for tag in card.tags])
        connection.executemany(
            "INSERT OR IGNORE INTO lineage VALUES (?, ?, 1.0, 'card')", [(member.id, parent) for parent in card.parents]
        )


def _storable(value: Any) -> Any:
    """SQLite's integers have 64 bits; a greater one is compared as a float."""
    return float(value) if isinstance(value, int) and abs(value) >= 2**63 else value


def _norm(tensor: "Tensor") -> float | None:
    """Euclidean norm; None if the tensor holds a NaN or an infinity, which SQLite cannot compare."""
    norm = tensor.double().norm()
    return norm.item() if norm.isfinite() else None


def _no_tensor(name: str, digest: str) -> "Tensor":
    raise CorruptFileError(f"the tensor '{name}' was written and forgotten", got=digest)
