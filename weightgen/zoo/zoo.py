"""Zoo: a folder of networks with a catalogue that can be queried; tensors are read only when they are asked for."""

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightgen.architecture import Architecture
from weightgen.checkpoint import Checkpoint
from weightgen.errors import CorruptFileError, DuplicateNameError, OutputError, UnknownNameError
from weightgen.registry import unknown_name
from weightgen.storage import tensor_digest
from weightgen.zoo import tree
from weightgen.zoo.catalogue import Catalogue
from weightgen.zoo.entering import BLOBS, insert
from weightgen.zoo.lineage import Edge, Lineage
from weightgen.zoo.packing import Packer, is_big
from weightgen.zoo.query import parse
from weightgen.zoo.result import Query
from weightgen.zoo.row import COLUMNS, Row

if TYPE_CHECKING:
    from torch import Tensor

    from weightgen.zoo.ingest import Report
    from weightgen.zoo.upkeep import Verification

OPEN_BLOBS = 8
"""Blobs kept open for reading."""

Names = Sequence[str] | Callable[[Checkpoint], str]


class Zoo:
    """A folder with a catalogue and safetensors blobs; make one with `create`, open one with `open`.

    Networks are known by their content: adding one twice keeps one. Several processes may add at once.

    Args:
        path: the folder.

    Raises:
        MissingDataError: if there is no zoo.
        CorruptFileError: if its catalogue is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.catalogue = Catalogue(path)
        self._blobs: OrderedDict[str, Any] = OrderedDict()

    @classmethod
    def create(cls, path: Path | str) -> "Zoo":
        """A new, empty zoo.

        Raises:
            OutputError: if there is one already, or the folder cannot be written.
        """
        Catalogue.create(Path(path))
        return cls(Path(path))

    @classmethod
    def open(cls, path: Path | str) -> "Zoo":
        """The zoo of a folder, or of that name on the shelf; one that cannot be written is opened for reading.

        Raises:
            MissingDataError: if there is none.
            CorruptFileError: if its catalogue is damaged.
        """
        from weightgen.shelf import shelf

        return cls(shelf("zoo", path))

    def __len__(self) -> int:
        return self.catalogue.rows("SELECT count(*) FROM models")[0][0]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.query())

    def __repr__(self) -> str:
        return f"Zoo({str(self.path)!r}, {len(self):,} networks)"

    @property
    def digest(self) -> str:
        """A hash of all its networks; what is trained on a zoo records it."""
        hasher = hashlib.sha256()
        for (name,) in self.catalogue.rows("SELECT id FROM models ORDER BY id"):
            hasher.update(name.encode())
        return hasher.hexdigest()[:16]

    def query(self, expression: "str | tree.Node" = "") -> Query:
        """The networks for which an expression holds.

        Args:
            expression: text such as `task = 'mnist' and metrics.accuracy > 0.95`, or the same made with `F`:
                `(F.task == "mnist") & (F.metrics.accuracy > 0.95)`.

        Raises:
            QueryError: if it cannot be read or names an unknown field.
        """
        if isinstance(expression, str):
            return Query(self, expression, parse(expression))
        return Query(self, "", expression)

    def snapshot(self, name: str) -> Query:
        """The networks that `Query.freeze` kept under a name, those that were removed since left out.

        Raises:
            UnknownNameError: if there is no such snapshot.
        """
        names = [each for (each,) in self.catalogue.rows("SELECT name FROM snapshots")]
        if name not in names:
            raise unknown_name("snapshot", name, names)
        ids = [key for (key,) in self.catalogue.rows("SELECT id FROM frozen WHERE snapshot = ? ORDER BY id", (name,))]
        return self.query(tree.Among(tuple(ids)))

    def lineage(self, name: str, inferred: bool = False) -> Lineage:
        """What a network was made from and what was made from it, as declared; with guessed edges if `inferred` is set.

        Raises:
            UnknownNameError: if there is no such network.
        """
        return Lineage.of(self, self.row(name), inferred)

    def infer_lineage(self, expression: str = "", save: bool = False) -> list[Edge]:
        """Guesses from weights what is fine-tuned from what; see `inference.infer_lineage`."""
        from weightgen.zoo.inference import infer_lineage

        return infer_lineage(self, expression, save)

    def fields(self) -> list[str]:
        """All fields that a query of this zoo can name."""
        metrics = self.catalogue.rows("SELECT DISTINCT name, split FROM metrics")
        hyperparameters = self.catalogue.rows("SELECT DISTINCT name FROM hyperparameters")
        return [
            *tree.TEXT_FIELDS,
            *tree.NUMBER_FIELDS,
            *tree.SET_FIELDS,
            *sorted(f"metrics.{name}" if split == "test" else f"metrics.{split}.{name}" for name, split in metrics),
            *sorted(f"hyperparameters.{name}" for (name,) in hyperparameters),
        ]

    def row(self, name: str) -> Row:
        """The network of that id, name, or beginning of an id that no other shares.

        Raises:
            UnknownNameError: if there is none, or several.
        """
        exact = f"SELECT {COLUMNS} FROM models WHERE id = ? OR name = ? ORDER BY id = ? DESC LIMIT 1"
        found = self.catalogue.rows(exact, (name, name, name))
        if not found and re.fullmatch(r"[0-9a-f]{4,}", name):
            begins = f"SELECT {COLUMNS} FROM models WHERE id >= ? AND id < ? LIMIT 2"
            found = self.catalogue.rows(begins, (name, name + "g"))
        if len(found) > 1:
            raise UnknownNameError(f"several networks have an id that begins with '{name}'", remedy="give more of it")
        if not found:
            names = [each for (each,) in self.catalogue.rows("SELECT name FROM models")]
            raise unknown_name("network", name, names, remedy=f"see: weightgen zoo list {self.path}")
        return Row(self, *found[0])

    def load(self, name: str) -> Checkpoint:
        """The network of that id, name, or unique beginning of an id.

        Raises:
            UnknownNameError: if there is none, or several.
        """
        return self.row(name).load()

    def state_dicts(self, expression: str = "") -> dict[str, dict[str, "Tensor"]]:
        """The tensors of all networks for which `expression` holds: id → state dict, in the order they were added."""
        rows = list(self.query(expression))
        found: dict[str, dict[str, Tensor]] = {row.id: {} for row in rows}
        for row in sorted(rows, key=lambda row: row._blob):
            found[row.id] = row.load().state_dict()
        return found

    def add(self, checkpoints: Iterable[Checkpoint], name: Names | None = None) -> list[str]:
        """Adds networks, all or none; those that are there already are passed over.

        Small networks are packed many to a file. A process killed meanwhile leaves the zoo as it was,
        with at most a file that nothing refers to.

        Args:
            name: a name for each, or a function that names one; the first 12 letters of its id if None.

        Returns:
            The id of each.

        Raises:
            DuplicateNameError: if a name belongs to another network.
            OutputError: if the zoo cannot be written.
        """
        if not self.catalogue.writable:
            raise OutputError("the zoo is read-only", where=self.path, remedy="copy the folder and write there")
        packer = Packer(self.path / BLOBS)
        ids: list[str] = []
        new: set[str] = set()
        names: set[str] = set()
        for index, checkpoint in enumerate(checkpoints):
            key = checkpoint.id
            ids.append(key)
            if key in new or self.catalogue.rows("SELECT 1 FROM models WHERE id = ?", (key,)):
                continue
            chosen = key[:12] if name is None else name(checkpoint) if callable(name) else name[index]
            self._check_name(chosen, key, names)
            new.add(key)
            names.add(chosen)
            packer.add_big(chosen, checkpoint) if is_big(checkpoint) else packer.add(key, chosen, checkpoint)
        blobs = packer.finish()
        with self.catalogue.transaction() as connection:
            for blob in blobs:
                insert(connection, self.path, blob)
        return ids

    def ingest(self, *paths: Path | str, workers: int = 1, **facts: Any) -> "Report":
        """Reads the networks of any known format below `paths`; see `weightgen.zoo.ingest`.

        Args:
            facts: task, metrics, tags, parents and pattern, as in `ingest.Facts`.
        """
        from weightgen.zoo.ingest import Facts, ingest

        return ingest(self, paths, Facts(**facts), workers)

    def _check_name(self, name: str, key: str, others: set[str]) -> None:
        # Another process may have added this very network a moment ago, under the same name.
        taken = self.catalogue.rows("SELECT 1 FROM models WHERE name = ? AND id != ?", (name, key))
        if name in others or taken:
            raise DuplicateNameError(
                f"the name '{name}' belongs to another network", where=self.path, remedy="give each its own name"
            )

    def verify(self) -> "Verification":
        """Reads every tensor and holds it against its digest; see `upkeep.verify`."""
        from weightgen.zoo.upkeep import verify

        return verify(self)

    def remove(self, *names: str) -> list[str]:
        """Takes networks out; see `upkeep.remove`."""
        from weightgen.zoo.upkeep import remove

        return remove(self, names)

    def gc(self, age: float = 3600.0) -> dict[str, int]:
        """Gives back the space of removed networks; see `upkeep.gc`."""
        from weightgen.zoo.upkeep import gc

        return gc(self, age)

    def forget(self, blob: str) -> None:
        """Closes a blob that was kept open for reading."""
        self._blobs.pop(blob, None)

    def _checkpoint(self, row: Row) -> Checkpoint:
        statement = "SELECT name, kind, shape, digest FROM tensors WHERE model = ? ORDER BY position"
        found = self.catalogue.rows(statement, (row.number,))
        try:
            shapes = {name: (kind, tuple(json.loads(shape))) for name, kind, shape, _ in found}
        except (ValueError, TypeError) as error:
            raise CorruptFileError("the shapes cannot be read", where=f"{self.path}: {row.id}") from error
        digests = {name: digest for name, _, _, digest in found}
        blob, key = row._blob, row.id

        def read(name: str, digest: str) -> "Tensor":
            return self._read(blob, f"{key}/{name}", digest)

        return Checkpoint.lazy(Architecture.parse(row.architecture), shapes, digests, read, row.card)

    def _read(self, blob: str, name: str, digest: str) -> "Tensor":
        from safetensors import SafetensorError

        try:
            # A copy, since what an open blob gives is its own memory.
            tensor = self._open_blob(blob).get_tensor(name).clone()
        except (SafetensorError, OSError) as error:
            raise _damaged(self.path / BLOBS / blob, str(error)) from error
        if tensor_digest(tensor) != digest:
            raise _damaged(self.path / BLOBS / blob, f"the tensor '{name}' does not match its digest")
        return tensor

    def _open_blob(self, blob: str) -> Any:
        from safetensors import safe_open

        if blob not in self._blobs:
            if not re.fullmatch(r"[0-9a-f]{32}\.safetensors", blob):
                raise CorruptFileError("the catalogue names a file outside the zoo", where=self.path, got=repr(blob))
            if len(self._blobs) >= OPEN_BLOBS:
                self._blobs.popitem(last=False)
            self._blobs[blob] = safe_open(self.path / BLOBS / blob, framework="pt")
        self._blobs.move_to_end(blob)
        return self._blobs[blob]


def _damaged(path: Path, what: str) -> CorruptFileError:
    return CorruptFileError(f"the file is damaged: {what}", where=path, remedy="fetch or make the zoo again")
