"""An ingest that is killed at a chosen call, and what must be the same afterwards; for `scripts/benchmarks/kills`."""

import os
import signal
import sqlite3
import sys
import threading
from pathlib import Path

import torch
from safetensors.torch import save_file

from weightgen.zoo import Zoo, packing
from weightgen.zoo import ingest as module
from weightgen.zoo.catalogue import FILE_NAME

TABLES = (
    "blobs", "models", "tensors", "metrics", "hyperparameters", "tags", "lineage", "sources", "spaces", "embedded",
)  # fmt: skip


def write_sources(folder: Path, small: int, big: int) -> None:
    """Networks of a file each, the last few of them so big that each gets a blob of its own."""
    folder.mkdir(exist_ok=True)
    for seed in range(small + big):
        random = torch.Generator().manual_seed(seed)
        size = 20 if seed < small else 3000
        tensors = {f"layer{at}.weight": torch.randn(size, generator=random) for at in range(3)}
        save_file(tensors, folder / f"net_{seed:03d}.safetensors", {"seed": str(seed)})


def content(zoo: Path) -> list:
    """Everything a catalogue says, row by row, and the embeddings that it names."""
    with sqlite3.connect(f"file:{zoo}/{FILE_NAME}?mode=ro", uri=True) as connection:
        found = [connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in TABLES]
        found.append(connection.execute("SELECT rowid, name, about FROM texts ORDER BY 1").fetchall())
    connection.close()
    # A killed ingest may have written places of networks that it did not enter; those that are entered lie before.
    matrix = (zoo / "embeddings" / "statistics-v1.float32").read_bytes()
    return [*found, matrix[: 4 * 128 * len(found[-1])]]


def run(zoo: Path, sources: Path, last: int | None = None) -> int:
    """An ingest in chunks of a few sources, killed at its call number `last`; gives how many calls there were.

    Calls of Python and C functions alike are counted, in all threads; so what is killed, and where, does not depend on
    how fast the machine is.
    """
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += 1
        if calls == last:
            os.kill(os.getpid(), signal.SIGKILL)

    module.CHUNK_SOURCES, packing.BIG_BYTES = 4, 30_000
    threading.setprofile(count)
    sys.setprofile(count)
    try:
        opened = Zoo(zoo) if (zoo / FILE_NAME).is_file() else Zoo.create(zoo)
        module.ingest(opened, [sources])
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    opened.catalogue.close()
    return calls


def run_killed(zoo: Path, sources: Path, last: int) -> bool:
    """`run` in a process of its own; whether it was killed."""
    child = os.fork()
    if child == 0:
        try:
            run(zoo, sources, last)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, f"the ingest died of signal {os.WTERMSIG(status)}"
        return True
    assert os.WEXITSTATUS(status) == 0, "the ingest failed"
    return False
