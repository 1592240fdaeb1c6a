"""Puts what was written to blobs into the catalogue, and takes networks out of it."""

import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from weightgen.errors import CorruptFileError, DuplicateNameError
from weightgen.zoo.packing import Blob, Member
from weightgen.zoo.spaces import write_vectors
from weightgen.zoo.summary import SPACE
from weightgen.zoo.texts import about

BLOBS = "blobs"

_MODEL = (
    "INSERT INTO models (id, name, architecture, family, parameters, task, origin, run, split, card, blob, format)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_TENSOR = (
    "INSERT INTO tensors (model, position, name, kind, shape, norm, digest, zeros, non_finite)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def insert(connection: sqlite3.Connection, folder: Path, blob: Blob, rename: bool = False) -> list[str]:
    """Enters the networks of a blob, all but those that are known; within a transaction.

    Args:
        folder: the zoo's.
        rename: give a network whose name is taken another one, instead of raising.

    Returns:
        The ids of those that are new.

    Raises:
        DuplicateNameError: if a name belongs to another network.
        CorruptFileError: if the blob has gone since it was written.
    """
    new = [member for member in blob.members if not _is_known(connection, member.id)]
    if not new:
        return []
    if not (folder / BLOBS / blob.name).is_file():
        raise CorruptFileError("a file that was just written is gone", where=folder / BLOBS / blob.name)
    # Another process may have written the same networks, or the same blob, since we looked.
    connection.execute("INSERT OR IGNORE INTO blobs VALUES (?, ?, ?)", (blob.name, blob.bytes, len(blob.members)))
    numbers = [_insert(connection, member, blob.name, rename) for member in new]
    write_vectors(connection, folder, SPACE, numbers, [member.vector for member in new])
    return [member.id for member in new]


def _is_known(connection: sqlite3.Connection, key: str) -> bool:
    return connection.execute("SELECT 1 FROM models WHERE id = ?", (key,)).fetchone() is not None


def _insert(connection: sqlite3.Connection, member: Member, blob: str, rename: bool) -> int:
    card = member.card
    name = member.name
    if connection.execute("SELECT 1 FROM models WHERE name = ?", (name,)).fetchone():
        if not rename:
            raise DuplicateNameError(f"the name '{name}' belongs to another network", remedy="choose another")
        name = f"{name}~{member.id[:12]}"
    entries = card.to_json()
    text = json.dumps(entries, sort_keys=True)
    columns = (
        member.id, name, member.architecture, member.family, member.parameters, card.task, card.origin, card.run,
        card.split, text, blob, str(card.made_with.get("format", "weightgen")),
    )  # fmt: skip
    number = connection.execute(_MODEL, columns).lastrowid
    connection.executemany(
        _TENSOR,
        [
            (
                number, position, one.name, one.kind, json.dumps(one.shape), one.norm, one.digest, one.zeros,
                one.non_finite,
            )
            for position, one in enumerate(member.tensors)
        ],
    )  # fmt: skip
    connection.executemany(
        "INSERT OR IGNORE INTO metrics VALUES (?, ?, ?, ?, ?, ?)",
        [
            (number, metric.name, metric.split, metric.digest, position, metric.value)
            for position, metric in enumerate(card.metrics)
        ],
    )
    connection.executemany(
        "INSERT INTO hyperparameters VALUES (?, ?, ?)",
        [(number, each, _storable(value)) for each, value in card.hyperparameters.items()],
    )
    connection.executemany("INSERT OR IGNORE INTO tags VALUES (?, ?)", [(number, tag) for tag in card.tags])
    connection.executemany(
        "INSERT OR IGNORE INTO lineage VALUES (?, ?, 1.0, 'card')", [(member.id, parent) for parent in card.parents]
    )
    words = (number, name, about(member.architecture, entries))
    connection.execute("INSERT INTO texts (rowid, name, about) VALUES (?, ?, ?)", words)
    return int(number or 0)


def delete(connection: sqlite3.Connection, numbers: Iterable[int]) -> None:
    """Takes networks out of the catalogue; edges to their children stay, since those were made from them."""
    for number in numbers:
        (key,) = connection.execute("SELECT id FROM models WHERE number = ?", (number,)).fetchone()
        connection.execute("DELETE FROM lineage WHERE child = ?", (key,))
        for table in ("tensors", "metrics", "hyperparameters", "tags", "embedded"):
            connection.execute(f"DELETE FROM {table} WHERE model = ?", (number,))
        connection.execute("DELETE FROM texts WHERE rowid = ?", (number,))
        connection.execute("DELETE FROM models WHERE number = ?", (number,))


def _storable(value: Any) -> Any:
    """SQLite's integers have 64 bits; a greater one is compared as a float."""
    return float(value) if isinstance(value, int) and abs(value) >= 2**63 else value
