"""The catalogue of a zoo: what it knows of its networks, in one SQLite file."""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from weightgen.errors import CorruptFileError, MissingDataError, OutputError
from weightgen.storage import atomic
from weightgen.zoo import schema

FILE_NAME = "catalogue.db"
APPLICATION = 0x77674E31
"""SQLite's application id: tells a catalogue from any other database."""

WAIT = 120.0
"""Seconds to wait for another process that is writing."""

CHUNK = 500
"""Values bound in one statement; SQLite's own limit is 999 in old versions."""


class Catalogue:
    """Access to the catalogue of the zoo in `folder`; statements are constants or made by `query.py`, values are bound.

    Args:
        folder: the zoo's folder.

    Raises:
        MissingDataError: if there is no catalogue.
        CorruptFileError: if the file is not a catalogue, or one of a newer weightgen.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        if not self.path.is_file():
            raise MissingDataError(
                "not a zoo",
                where=folder,
                expected=f"a folder with {FILE_NAME}",
                remedy=f"make one with: weightgen zoo create {folder}",
            )
        self.writable = os.access(self.path, os.W_OK) and os.access(folder, os.W_OK)
        # SQLite keeps files beside a WAL database even to read it; `immutable` reads where none can be made.
        mode = "mode=rw" if self.writable else "mode=ro&immutable=1"
        with self._named_errors():
            self._connection = sqlite3.connect(
                f"file:{quote(str(self.path.resolve()))}?{mode}", uri=True, timeout=WAIT, isolation_level=None
            )
            self._connection.execute("PRAGMA trusted_schema = OFF")
            (application,) = self._connection.execute("PRAGMA application_id").fetchone()
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if application != APPLICATION:
            raise CorruptFileError("not the catalogue of a zoo", where=self.path)
        if version > schema.VERSION:
            raise CorruptFileError(
                "written by a newer weightgen",
                where=self.path,
                got=f"schema {version}",
                expected=f"at most {schema.VERSION}",
                remedy="upgrade weightgen",
            )
        if version < schema.VERSION:
            with self._named_errors():
                schema.stand_in(self._connection)

    @staticmethod
    def create(folder: Path) -> None:
        """An empty catalogue; it appears whole or not at all.

        Raises:
            OutputError: if there is one already, or the folder cannot be written.
        """
        path = folder / FILE_NAME
        if path.exists():
            raise OutputError("the zoo exists", where=folder, remedy="open it, or choose another place")
        with atomic(path) as temporary:
            connection = sqlite3.connect(temporary)
            try:
                # The log comes last: what it holds is moved to the file on closing, where a full disk raises nothing.
                connection.executescript(
                    f"PRAGMA journal_mode = MEMORY; PRAGMA application_id = {APPLICATION};"
                    f"PRAGMA user_version = {schema.VERSION}; BEGIN; {schema.FIRST} {';'.join(schema.SECOND)}; COMMIT;"
                    "PRAGMA journal_mode = WAL;"
                )
            except sqlite3.Error as error:
                raise OutputError(
                    "cannot write", where=path, got=str(error), remedy="see that the disk is not full"
                ) from error
            finally:
                connection.close()

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple]:
        """All rows of a SELECT."""
        with self._named_errors():
            return self._connection.execute(statement, values).fetchall()

    def rows_in(self, statement: str, values: Sequence[Any]) -> Iterator[tuple]:
        """Rows of a SELECT whose `{values}` stands for the list of `values`, asked for in chunks."""
        for start in range(0, len(values), CHUNK):
            chunk = values[start : start + CHUNK]
            yield from self.rows(statement.format(values=", ".join("?" * len(chunk))), chunk)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All statements of the block are kept, or none; other writers wait; an old catalogue is migrated first.

        Raises:
            OutputError: if the zoo cannot be written.
        """
        if not self.writable:
            raise OutputError("the zoo is read-only", where=self.path.parent, remedy="copy the folder and write there")
        with self._named_errors():
            if schema.stands_in(self._connection):
                schema.take_back(self._connection)
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                if self._connection.execute("PRAGMA user_version").fetchone()[0] < schema.VERSION:
                    schema.migrate(self._connection)
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # On a full disk SQLite has taken everything back already.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                if self._connection.execute("PRAGMA user_version").fetchone()[0] < schema.VERSION:
                    schema.stand_in(self._connection)
                raise

    def prepare_texts(self) -> None:
        """Sees that full-text search knows all networks, also those of an old catalogue that is only read."""
        if schema.stands_in(self._connection) and not self.rows("SELECT 1 FROM texts LIMIT 1"):
            with self._named_errors():
                schema.fill_texts(self._connection)

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise OutputError(
                "cannot use the catalogue",
                where=self.path,
                got=str(error),
                remedy="see that the disk is not full and no other process holds it",
            ) from error
        except sqlite3.DatabaseError as error:
            raise CorruptFileError(
                "the catalogue is damaged", where=self.path, got=str(error), remedy="fetch or make the zoo again"
            ) from error
