"""Puts what was written to blobs into the catalogue, and takes networks out of it."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from weightgen.errors import CorruptFileError, DuplicateNameError
from weightgen.zoo.packing import Blob, Member
from weightgen.zoo.spaces import write_vectors
from weightgen.zoo.summary import SPACE
from weightgen.zoo.texts import about

BLOBS = "blobs"

_MODEL = (
    "INSERT INTO models (number, id, name, architecture, family, parameters, task, origin, run, split, card, blob,"
    " format) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_TENSOR = (
    "INSERT INTO tensors (model, position, name, kind, shape, norm, digest, zeros, non_finite)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_METRIC = "INSERT OR IGNORE INTO metrics VALUES (?, ?, ?, ?, ?, ?)"
_HYPERPARAMETER = "INSERT INTO hyperparameters VALUES (?, ?, ?)"
_TAG = "INSERT OR IGNORE INTO tags VALUES (?, ?)"
_LINEAGE = "INSERT OR IGNORE INTO lineage VALUES (?, ?, 1.0, 'card')"
_TEXT = "INSERT INTO texts (rowid, name, about) VALUES (?, ?, ?)"

_encode = json.JSONEncoder(sort_keys=True).encode


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
    known = _existing(connection, "id", [member.id for member in blob.members])
    new = [member for member in blob.members if member.id not in known]
    if not new:
        return []
    if not (folder / BLOBS / blob.name).is_file():
        raise CorruptFileError("a file that was just written is gone", where=folder / BLOBS / blob.name)
    # Another process may have written the same networks, or the same blob, since we looked.
    connection.execute("INSERT OR IGNORE INTO blobs VALUES (?, ?, ?)", (blob.name, blob.bytes, len(blob.members)))
    (first,) = connection.execute("SELECT coalesce(max(number), 0) + 1 FROM models").fetchone()
    numbers = range(first, first + len(new))
    for statement, rows in _rows(numbers, _names(connection, new, rename), new, blob.name).items():
        connection.executemany(statement, rows)
    write_vectors(connection, folder, SPACE, numbers, [member.vector for member in new])
    return [member.id for member in new]


def _existing(connection: sqlite3.Connection, column: str, values: list[str]) -> set[str]:
    statement = f"SELECT {column} FROM models WHERE {column} IN (SELECT value FROM json_each(?))"
    return {value for (value,) in connection.execute(statement, (json.dumps(values),))}


def _names(connection: sqlite3.Connection, members: list[Member], rename: bool) -> list[str]:
    """The name of each network, a new one where it is taken."""
    taken = _existing(connection, "name", [member.name for member in members])
    names = []
    for member in members:
        if member.name in taken and not rename:
            raise DuplicateNameError(f"the name '{member.name}' belongs to another network", remedy="choose another")
        names.append(f"{member.name}~{member.id[:12]}" if member.name in taken else member.name)
        taken.add(names[-1])
    return names


def _rows(numbers: Sequence[int], names: list[str], members: list[Member], blob: str) -> dict[str, list[tuple]]:
    """Statement → the rows that it enters, of all networks together."""
    rows: dict[str, list[tuple]] = {
        statement: [] for statement in (_MODEL, _TENSOR, _METRIC, _HYPERPARAMETER, _TAG, _LINEAGE, _TEXT)
    }
    for number, name, member in zip(numbers, names, members, strict=True):
        card, entries = member.card, member.card.to_json()
        rows[_MODEL].append((
            number, member.id, name, member.architecture, member.family, member.parameters, card.task, card.origin,
            card.run, card.split, _encode(entries), blob, str(card.made_with.get("format", "weightgen")),
        ))  # fmt: skip
        rows[_TENSOR] += [(number, position, *one) for position, one in enumerate(member.tensors)]
        rows[_METRIC] += [
            (number, metric.name, metric.split, metric.digest, position, metric.value)
            for position, metric in enumerate(card.metrics)
        ]
        rows[_HYPERPARAMETER] += [(number, each, _storable(value)) for each, value in card.hyperparameters.items()]
        rows[_TAG] += [(number, tag) for tag in card.tags]
        rows[_LINEAGE] += [(member.id, parent) for parent in card.parents]
        rows[_TEXT].append((number, name, about(member.architecture, entries)))
    return rows


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
