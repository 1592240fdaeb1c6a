"""Upkeep of a zoo: verify every byte, take networks out, and give back the space that they took."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from weightgen.errors import OutputError, WeightgenError
from weightgen.zoo.entering import BLOBS, delete
from weightgen.zoo.packing import Packer, is_big

if TYPE_CHECKING:
    from weightgen.zoo.zoo import Zoo

HOUR = 3600.0
"""Seconds that a file which nothing refers to is left alone: an ingest may be about to enter it."""

Progress = Callable[[int, int, str], None]


@dataclass
class Verification:
    """What `verify` found.

    Args:
        networks: how many were read.
        damaged: id → what is wrong with it.
        orphans: files that no network lies in; `gc` removes them.
    """

    networks: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    orphans: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {"networks": self.networks, "damaged": self.damaged, "orphans": self.orphans}


def verify(zoo: "Zoo", progress: Progress | None = None) -> Verification:
    """Reads every tensor of every network and holds it against its digest, and each id against its network."""
    result = Verification()
    total = len(zoo)
    # Blob after blob, so that each is opened once.
    for number in [one for (one,) in zoo.catalogue.rows("SELECT number FROM models ORDER BY blob, number")]:
        for row in zoo.query()._fetched([number]):
            result.networks += 1
            try:
                checkpoint = row.load()
                for name in checkpoint.shapes:
                    checkpoint.read(name)
                if checkpoint.id != row.id:
                    result.damaged[row.id] = "its id is not that of its tensors"
            except WeightgenError as error:
                result.damaged[row.id] = str(error)
        if progress is not None:
            progress(result.networks, total, f"{len(result.damaged):,} damaged")
    result.orphans = sorted(path.name for path in _orphans(zoo, 0.0))
    return result


def remove(zoo: "Zoo", names: Sequence[str]) -> list[str]:
    """Takes networks out of the catalogue, all or none; `gc` then gives their space back.

    Args:
        names: ids, names or beginnings of ids.

    Returns:
        Their ids.

    Raises:
        UnknownNameError: if there is no such network.
        OutputError: if the zoo cannot be written.
    """
    rows = [zoo.row(name) for name in names]
    with zoo.catalogue.transaction() as connection:
        delete(connection, dict.fromkeys(row.number for row in rows))
        # What was read may be ingested again.
        connection.execute("DELETE FROM sources")
    return [row.id for row in rows]


def gc(zoo: "Zoo", age: float = HOUR, progress: Progress | None = None) -> dict[str, int]:
    """Gives back the space of removed networks and of killed writers.

    Args:
        age: files that nothing refers to are kept for so many seconds, since a writer may be about to enter them.

    Returns:
        `files`: how many were removed; `bytes`: how much less there is now; `repacked`: networks that were moved.

    Raises:
        OutputError: if the zoo cannot be written.
    """
    if not zoo.catalogue.writable:
        raise OutputError("the zoo is read-only", where=zoo.path, remedy="copy the folder and write there")
    before = _size(zoo)
    counts = "SELECT count(*) FROM models WHERE blob = blobs.name"
    thin = zoo.catalogue.rows(f"SELECT name, ({counts}) AS live FROM blobs WHERE live < networks")
    moved = 0
    for index, (blob, live) in enumerate(thin):
        moved += live
        _repack(zoo, blob)
        if progress is not None:
            progress(index + 1, len(thin), f"{moved:,} networks moved")
    # What has just been emptied nobody is about to enter.
    emptied = {blob for blob, _ in thin}
    orphans = [path for path in _orphans(zoo, 0.0) if path.name in emptied] + _orphans(zoo, age)
    for path in dict.fromkeys(orphans):
        path.unlink(missing_ok=True)
    return {"files": len(dict.fromkeys(orphans)), "bytes": before - _size(zoo), "repacked": moved}


def _repack(zoo: "Zoo", blob: str) -> None:
    """Moves the networks that still live in a blob to others."""
    packer = Packer(zoo.path / BLOBS)
    numbers = [number for (number,) in zoo.catalogue.rows("SELECT number FROM models WHERE blob = ?", (blob,))]
    for row in zoo.query()._fetched(numbers):
        checkpoint = row.load()
        if is_big(checkpoint):
            packer.add_big(row.name, checkpoint)
        else:
            packer.add(row.id, row.name, checkpoint)
    made = packer.finish()
    with zoo.catalogue.transaction() as connection:
        for new in made:
            values = (new.name, new.bytes, len(new.members))
            connection.execute("INSERT OR REPLACE INTO blobs VALUES (?, ?, ?)", values)
            connection.executemany(
                "UPDATE models SET blob = ? WHERE id = ?", [(new.name, member.id) for member in new.members]
            )
        if blob not in {new.name for new in made}:
            connection.execute("DELETE FROM blobs WHERE name = ?", (blob,))
    zoo.forget(blob)


def _orphans(zoo: "Zoo", age: float) -> list:
    """Files that no network lies in and that were not touched for `age` seconds."""
    used = {name for (name,) in zoo.catalogue.rows("SELECT DISTINCT blob FROM models")}
    folder = zoo.path / BLOBS
    files = [path for path in folder.iterdir() if path.name not in used] if folder.is_dir() else []
    return [path for path in files if path.is_file() and time.time() - path.stat().st_mtime >= age]


def _size(zoo: "Zoo") -> int:
    folder = zoo.path / BLOBS
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) if folder.is_dir() else 0
