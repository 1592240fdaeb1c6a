"""What befalls a zoo from outside: a disk that is full, a folder that nobody may write, files that lie."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from weightgen.errors import OutputError
from weightgen.zoo import Zoo
from weightgen.zoo import ingest as module
from weightgen.zoo.ingest import ingest


def write(folder: Path, number: int, size: int) -> None:
    folder.mkdir()
    for seed in range(number):
        values = torch.randn(size, generator=torch.Generator().manual_seed(seed))
        save_file({"w": values}, folder / f"net_{seed:03d}.safetensors")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own, of a given number of kilobytes; gives the function that makes it and makes it greater."""
    place = tmp_path / "disk"
    place.mkdir()

    def sized(kilobytes: int) -> Path:
        mounted = os.path.ismount(place)
        options = f"{'remount,' if mounted else ''}size={kilobytes}k"
        command = ["mount", *([] if mounted else ["-t", "tmpfs"]), "-o", options, *([] if mounted else ["none"]), place]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("this process may not mount a file system")
        return place

    yield sized
    if os.path.ismount(place):
        subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize("kilobytes", [240, 300, 400, 500])
def test_a_full_disk_loses_nothing_that_was_entered(kilobytes, small_disk, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_SOURCES", 4)
    write(tmp_path / "sources", 40, 3000)
    place = small_disk(kilobytes)
    try:
        zoo = Zoo.create(place / "zoo")
        with pytest.raises(OutputError, match=r"cannot (write|use)"):
            ingest(zoo, [tmp_path / "sources"])
        before = len(zoo)
        assert before < 40 and before % 4 == 0 and zoo.verify().damaged == {}
        zoo.catalogue.close()
    except OutputError:
        # Not even an empty catalogue fits.
        before = 0
    place = small_disk(20_000)
    zoo = Zoo(place / "zoo") if (place / "zoo" / "catalogue.db").is_file() else Zoo.create(place / "zoo")
    assert len(ingest(zoo, [tmp_path / "sources"]).added) == 40 - before
    assert zoo.verify().damaged == {} and len(zoo.query().nearest("net_003", 5)) == 5
    zoo.catalogue.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the rights are given up by a forked process")
def test_a_zoo_that_nobody_may_write_can_be_asked(tmp_path):
    # Not below pytest's own folder, which other users cannot enter.
    folder = Path(tempfile.mkdtemp())
    try:
        write(tmp_path / "sources", 5, 10)
        zoo = Zoo.create(folder / "zoo")
        ingest(zoo, [tmp_path / "sources"])
        zoo.catalogue.close()
        write(folder / "more", 7, 12)
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        assert as_nobody(lambda: Zoo(folder / "zoo").query("name glob 'net_*'").count()) == "5"
        assert as_nobody(lambda: len(Zoo(folder / "zoo").query().nearest("net_001", 3))) == "3"
        assert as_nobody(lambda: Zoo(folder / "zoo").verify().damaged) == "{}"
        for change in (
            lambda: ingest(Zoo(folder / "zoo"), [folder / "more"]),
            lambda: Zoo(folder / "zoo").remove("net_001"),
            lambda: Zoo(folder / "zoo").query().freeze("all"),
            lambda: Zoo(folder / "zoo").gc(),
        ):
            assert as_nobody(change).startswith("OutputError the zoo is read-only; in ")
        assert as_nobody(lambda: Zoo.create(folder / "other")).startswith("OutputError cannot write")
    finally:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755)
        shutil.rmtree(folder)


def as_nobody(call) -> str:
    """What a call gives, or its error, in a process that is not the superuser, to whom every file is open."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            text = str(call())
        except BaseException as error:
            text = f"{type(error).__name__} {error}"
        os.write(writer, text.encode()[:4000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        found = file.read().decode()
    os.waitpid(child, 0)
    return found
