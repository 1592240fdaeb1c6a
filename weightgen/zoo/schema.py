"""The tables of a catalogue, and how a catalogue of an older schema is read and brought up to date.

An old catalogue that is only read stays as it is on disk: temporary views and tables stand in for what it lacks. The
first write migrates it, in the same transaction.
"""

import json
import sqlite3
from typing import Any

from weightgen.zoo.texts import about

VERSION = 2

FIRST = """
CREATE TABLE blobs (
    name TEXT PRIMARY KEY,
    bytes INTEGER NOT NULL,
    networks INTEGER NOT NULL
);
CREATE TABLE models (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    architecture TEXT NOT NULL,
    family TEXT NOT NULL,
    parameters INTEGER NOT NULL,
    task TEXT,
    origin TEXT NOT NULL,
    run TEXT NOT NULL,
    split TEXT,
    card TEXT NOT NULL,
    blob TEXT NOT NULL REFERENCES blobs (name)
);
CREATE TABLE tensors (
    model INTEGER NOT NULL REFERENCES models (number),
    position INTEGER NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    shape TEXT NOT NULL,
    norm REAL,
    digest TEXT NOT NULL,
    PRIMARY KEY (model, position)
) WITHOUT ROWID;
CREATE TABLE metrics (
    model INTEGER NOT NULL REFERENCES models (number),
    name TEXT NOT NULL,
    split TEXT NOT NULL,
    digest TEXT NOT NULL,
    position INTEGER NOT NULL,
    value REAL NOT NULL,
    PRIMARY KEY (model, name, split, digest)
) WITHOUT ROWID;
CREATE TABLE hyperparameters (
    model INTEGER NOT NULL REFERENCES models (number),
    name TEXT NOT NULL,
    value,
    PRIMARY KEY (model, name)
) WITHOUT ROWID;
CREATE TABLE tags (
    model INTEGER NOT NULL REFERENCES models (number),
    tag TEXT NOT NULL,
    PRIMARY KEY (model, tag)
) WITHOUT ROWID;
CREATE TABLE lineage (
    child TEXT NOT NULL,
    parent TEXT NOT NULL,
    confidence REAL NOT NULL,
    source TEXT NOT NULL,
    PRIMARY KEY (child, parent, source)
) WITHOUT ROWID;
CREATE INDEX models_by_task ON models (task);
CREATE INDEX models_by_architecture ON models (architecture);
CREATE INDEX models_by_run ON models (run);
CREATE INDEX metrics_by_value ON metrics (name, split, value);
CREATE INDEX hyperparameters_by_value ON hyperparameters (name, value);
CREATE INDEX tags_by_tag ON tags (tag);
CREATE INDEX lineage_by_parent ON lineage (parent);
"""
"""Schema 1, as the first zoos were written."""

_NEW_TABLES = {
    "sources": "path TEXT PRIMARY KEY, bytes INTEGER NOT NULL, modified INTEGER NOT NULL, networks INTEGER NOT NULL",
    "spaces": "name TEXT PRIMARY KEY, dimension INTEGER NOT NULL, first INTEGER NOT NULL",
    "embedded": "model INTEGER NOT NULL, space TEXT NOT NULL, PRIMARY KEY (space, model)",
    "snapshots": "name TEXT PRIMARY KEY, digest TEXT NOT NULL, expression TEXT NOT NULL, networks INTEGER NOT NULL",
    "frozen": "snapshot TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (snapshot, id)",
}
"""What ingest has read; the embedding spaces, the first number that has a place, and who has one; frozen queries."""

_TEXTS = "USING fts5 (name, about, tokenize = \"unicode61 tokenchars '_'\")"
"""Words of names and cards; the row is the number of the model."""

SECOND = [
    "ALTER TABLE models ADD COLUMN format TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE tensors ADD COLUMN zeros INTEGER",
    "ALTER TABLE tensors ADD COLUMN non_finite INTEGER",
    *(f"CREATE TABLE {name} ({columns})" for name, columns in _NEW_TABLES.items()),
    f"CREATE VIRTUAL TABLE texts {_TEXTS}",
    "CREATE INDEX models_by_parameters ON models (parameters)",
    "CREATE INDEX models_by_format ON models (format)",
]
"""What schema 2 adds to schema 1."""

_MODELS = "number, id, name, architecture, family, parameters, task, origin, run, split, card, blob"

_STANDING_IN = [
    f"CREATE TEMP VIEW models AS SELECT {_MODELS}, '' AS format FROM main.models",
    "CREATE TEMP VIEW tensors AS SELECT model, position, name, kind, shape, norm, digest,"
    " NULL AS zeros, NULL AS non_finite FROM main.tensors",
    *(f"CREATE TEMP TABLE {name} ({columns})" for name, columns in _NEW_TABLES.items()),
    f"CREATE VIRTUAL TABLE temp.texts {_TEXTS}",
]

_REMOVED = [
    "DROP VIEW temp.models", "DROP VIEW temp.tensors", "DROP TABLE temp.texts",
    *(f"DROP TABLE temp.{name}" for name in _NEW_TABLES),
]  # fmt: skip


def stand_in(connection: sqlite3.Connection) -> None:
    """Gives a connection to a catalogue of schema 1 what schema 2 has, in memory only."""
    connection.execute("PRAGMA temp_store = MEMORY")
    for statement in _STANDING_IN:
        connection.execute(statement)


def stands_in(connection: sqlite3.Connection) -> bool:
    """Whether `stand_in` was called and not taken back."""
    return bool(connection.execute("SELECT 1 FROM sqlite_temp_master WHERE name = 'models'").fetchone())


def take_back(connection: sqlite3.Connection) -> None:
    """Undoes `stand_in`."""
    for statement in _REMOVED:
        connection.execute(statement)


def migrate(connection: sqlite3.Connection) -> None:
    """Brings a catalogue of schema 1 up to date; within a transaction."""
    for statement in SECOND:
        connection.execute(statement)
    fill_texts(connection)
    connection.execute(f"PRAGMA user_version = {VERSION}")


def fill_texts(connection: sqlite3.Connection) -> None:
    """Enters the words of every network that has none yet."""
    rows = connection.execute("SELECT number, name, architecture, card FROM models")
    connection.executemany(
        "INSERT INTO texts (rowid, name, about) VALUES (?, ?, ?)",
        [(number, name, about(architecture, _entries(card))) for number, name, architecture, card in rows],
    )


def _entries(card: str) -> Any:
    try:
        return json.loads(card)
    except (ValueError, RecursionError):
        return None
