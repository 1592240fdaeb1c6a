"""Ingest: whatever networks lie below some paths become entries of a zoo.

Sources are read in chunks. A chunk is written to blobs, by this process or a worker, and then entered in one
transaction, in the order of the chunks; so a killed ingest leaves the first few chunks, and when it is repeated goes on
behind them and ends with the same catalogue as one that was never killed.
"""

import dataclasses
import gc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightgen.checkpoint import Card, Metric, Scalar
from weightgen.errors import OutputError, WeightgenError
from weightgen.formats import Network, Source, discover
from weightgen.formats.format import read_as
from weightgen.zoo.entering import BLOBS, insert
from weightgen.zoo.naming import Pattern
from weightgen.zoo.packing import Blob, Packer, is_big

if TYPE_CHECKING:
    from weightgen.zoo.zoo import Zoo

CHUNK_SOURCES, CHUNK_BYTES = 256, 16 * 2**20
"""Sources, and bytes of them, that are read and entered together."""


@dataclass(frozen=True)
class Facts:
    """What the caller says of all networks of an ingest, beside what their sources say.

    Args:
        task: in place of what the source says, if given.
        metrics: `(name, split, value)`, before those of the source.
        tags: added.
        parents: ids or names of what they were made from, added.
        pattern: reads hyperparameters from names; see `naming.py`.
    """

    task: str | None = None
    metrics: tuple[tuple[str, str, float], ...] = ()
    tags: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    pattern: str | None = None

    def apply(self, card: Card, source: str) -> Card:
        """The Card with these facts, and with the source as its run if it names none."""
        metrics = tuple(Metric(name, value, split, "") for name, split, value in self.metrics)
        found: dict[str, Scalar] = dict((Pattern.parse(self.pattern).match(source) if self.pattern else None) or {})
        return dataclasses.replace(
            card,
            task=self.task or card.task,
            metrics=(*metrics, *card.metrics),
            hyperparameters={**card.hyperparameters, **found},
            parents=(*card.parents, *self.parents),
            tags=tuple(dict.fromkeys((*card.tags, *self.tags))),
            run=card.run or source,
        )


@dataclass
class Report:
    """What an ingest did.

    Args:
        added: ids of the new networks.
        known: networks that the zoo had already.
        done: sources that an earlier ingest had read.
        failed: source → why it could not be read.
        skipped: why something was passed over → how often.
        networks: of a dry run, what would be added if it is not there already.
        unmatched: networks whose names the pattern did not match.
    """

    added: list[str] = field(default_factory=list)
    known: int = 0
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    networks: list[dict[str, Any]] = field(default_factory=list)
    unmatched: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "added": len(self.added), "ids": self.added, "known": self.known, "done": self.done, "failed": self.failed,
            "skipped": dict(self.skipped), "networks": self.networks, "unmatched": self.unmatched,
        }  # fmt: skip


@dataclass(frozen=True)
class _Stamp:
    """By which a source is known again without reading it."""

    path: str
    bytes: int
    modified: int


@dataclass(frozen=True)
class _Read:
    """What became of one source: its blobs, or why it failed."""

    stamp: _Stamp
    blobs: list[Blob]
    networks: int = 0
    unmatched: int = 0
    error: str = ""


Progress = Callable[[int, int, str], None]


def ingest(
    zoo: "Zoo",
    paths: Sequence[Path | str],
    facts: Facts = Facts(),
    workers: int = 1,
    progress: Progress | None = None,
) -> Report:
    """Reads every network below `paths` into the zoo. A source that cannot be read is reported, and the rest goes on.

    Args:
        workers: processes that read; 1 reads in this one.
        progress: called with sources done, sources in all, and a text.

    Raises:
        MissingDataError: if a path is not there.
        OutputError: if the zoo cannot be written, or the disk is full.
        QueryError: if the pattern cannot be read.
    """
    if facts.pattern:
        Pattern.parse(facts.pattern)
    if not zoo.catalogue.writable:
        raise OutputError("the zoo is read-only", where=zoo.path, remedy="copy the folder and write there")
    report = Report()
    todo = [source for source in _sources(paths, report) if not _is_done(zoo, source, report)]
    done = 0
    for results in _read_all(list(_chunks(todo)), facts, zoo.path / BLOBS, workers):
        with zoo.catalogue.transaction() as connection:
            new = [key for result in results for key in _enter(connection, zoo.path, result)]
        report.added += new
        report.known += max(0, sum(result.networks for result in results) - len(new))
        report.unmatched += sum(result.unmatched for result in results)
        report.failed.update({result.stamp.path: result.error for result in results if result.error})
        done += len(results)
        if progress is not None:
            progress(done, len(todo), f"{len(report.added):,} networks")
    return report


def preview(paths: Sequence[Path | str], facts: Facts = Facts()) -> Report:
    """What `ingest` would read; headers are read and nothing is written."""
    if facts.pattern:
        Pattern.parse(facts.pattern)
    report = Report()
    for source in _sources(paths, report):
        try:
            for network in read_as(source.format or "", source.path):
                card = facts.apply(network.checkpoint.card, source.name)
                report.unmatched += _misses(facts, source.name)
                report.networks.append(
                    {
                        "name": _name(source, network), "format": source.format, "task": card.task,
                        "architecture": str(network.checkpoint.architecture),
                        "parameters": network.checkpoint.parameters,
                        "hyperparameters": dict(card.hyperparameters),
                        "metrics": {metric.name: metric.value for metric in card.metrics},
                    }
                )  # fmt: skip
        except WeightgenError as error:
            report.failed[str(source.path)] = str(error)
    return report


def _sources(paths: Sequence[Path | str], report: Report) -> Iterator[Source]:
    """What is to be read, each path once; what is passed over is counted."""
    seen: set[Path] = set()
    for path in paths:
        for source in discover(path):
            place = source.path.absolute()
            if place in seen:
                continue
            seen.add(place)
            if source.format is None:
                report.skipped[source.reason] += 1
            else:
                yield source


def _stamp(source: Source) -> _Stamp:
    """Size and time of a file; of a folder those of the files in it; of the name of a model nothing."""
    path = source.path
    if not path.exists():
        return _Stamp(str(path), 0, 0)
    files = [path] if path.is_file() else sorted(each for each in path.glob("*") if each.is_file())
    states = [file.stat() for file in files]
    place = str(path.absolute()).encode("utf-8", "replace").decode()
    return _Stamp(place, sum(one.st_size for one in states), max((one.st_mtime_ns for one in states), default=0))


def _is_done(zoo: "Zoo", source: Source, report: Report) -> bool:
    stamp = _stamp(source)
    statement = "SELECT 1 FROM sources WHERE path = ? AND bytes = ? AND modified = ?"
    found = bool(zoo.catalogue.rows(statement, (stamp.path, stamp.bytes, stamp.modified)))
    report.done += found
    return found


def _chunks(sources: Sequence[Source]) -> Iterator[list[Source]]:
    """Sources that are read together; where a chunk ends depends on nothing but where it begins."""
    chunk: list[Source] = []
    size = 0
    for source in sources:
        chunk.append(source)
        size += _stamp(source).bytes
        if len(chunk) >= CHUNK_SOURCES or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _read_all(chunks: list[list[Source]], facts: Facts, folder: Path, workers: int) -> Iterator[list[_Read]]:
    """The results of all chunks in their order; workers are never more than a few chunks ahead."""
    if workers <= 1 or len(chunks) <= 1:
        yield from (_read_chunk(chunk, facts, folder) for chunk in chunks)
        return
    with ProcessPoolExecutor(workers, _context(), initializer=_begin_worker) as pool:
        waiting: list[tuple[list[Source], Future]] = []
        for chunk in chunks:
            waiting.append((chunk, pool.submit(_read_chunk, chunk, facts, folder)))
            if len(waiting) > 2 * workers:
                yield _result(*waiting.pop(0), facts)
        while waiting:
            yield _result(*waiting.pop(0), facts)


def _context() -> Any:
    """How workers are started: from a server that has imported torch once, where the system has such."""
    from multiprocessing import get_all_start_methods, get_context

    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["torch", "safetensors", "weightgen.zoo.ingest"])
    return context


def _begin_worker() -> None:
    import torch

    torch.set_num_threads(1)


def _result(chunk: list[Source], future: "Future[list[_Read]]", facts: Facts) -> list[_Read]:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise OutputError(
            "a worker died, maybe for want of memory", where=str(chunk[0].path),
            remedy="run it again with --workers 1; what was entered is kept",
        ) from error  # fmt: skip


def _read_chunk(chunk: list[Source], facts: Facts, folder: Path) -> list[_Read]:
    """Writes the networks of a chunk to blobs. Small networks of several sources share blobs."""
    with _uncollected():
        return _read_sources(chunk, facts, folder)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without Python's search for cycles: it would look through all of torch again for every few networks."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _read_sources(chunk: list[Source], facts: Facts, folder: Path) -> list[_Read]:
    packer = Packer(folder)
    read: list[_Read] = []
    for source in chunk:
        stamp = _stamp(source)
        try:
            networks = read_as(source.format or "", source.path)
            unmatched = _misses(facts, source.name) * len(networks)
            for network in networks:
                _add(packer, network, source, facts)
            read.append(_Read(stamp, [], len(networks), unmatched))
        except (WeightgenError, OSError, MemoryError) as error:
            if isinstance(error, OutputError) or (isinstance(error, OSError) and error.errno in _FULL):
                raise
            # What it had given before it failed stays: those networks are whole.
            read.append(_Read(stamp, [], error=str(error)))
    read[-1] = dataclasses.replace(read[-1], blobs=packer.finish())
    return read


_FULL = (28, 30, 122)
"""No space left, read-only file system, quota exceeded: troubles of the zoo, not of the source."""


def _add(packer: Packer, network: Network, source: Source, facts: Facts) -> None:
    card = facts.apply(network.checkpoint.card, source.name)
    checkpoint = network.checkpoint.replace_card(**vars(card))
    name = _name(source, network)
    if is_big(checkpoint):
        packer.add_big(name, checkpoint)
    else:
        packer.add(checkpoint.id, name, checkpoint)


def _name(source: Source, network: Network) -> str:
    # A blob of another zoo names its networks; any other source is named after its place.
    if source.format == "safetensors" and network.part:
        return network.part
    return f"{source.name}:{network.part}" if network.part else source.name


def _misses(facts: Facts, name: str) -> int:
    return int(bool(facts.pattern) and Pattern.parse(facts.pattern or "").match(name) is None)


def _enter(connection: Any, folder: Path, result: _Read) -> list[str]:
    """Enters what a source gave, and that it was read; gives the ids that are new."""
    new = [key for blob in result.blobs for key in insert(connection, folder, blob, rename=True)]
    if not result.error:
        stamp = result.stamp
        values = (stamp.path, stamp.bytes, stamp.modified, result.networks)
        connection.execute("INSERT OR REPLACE INTO sources VALUES (?, ?, ?, ?)", values)
    return new
