import os
import sqlite3
import subprocess
import sys
import time

import pytest
import torch

from weightgen.architecture import Architecture
from weightgen.checkpoint import Card, Checkpoint, Metric
from weightgen.errors import (
    CorruptFileError,
    DuplicateNameError,
    MissingDataError,
    OutputError,
    UnknownNameError,
)
from weightgen.zoo import Zoo, packing
from weightgen.zoo import zoo as module

ARCHITECTURE = Architecture.parse("weightgen/mlp?hidden=2")


def network(seed: int, **card) -> Checkpoint:
    random = torch.Generator().manual_seed(seed)
    shapes = ARCHITECTURE.parameter_shapes()
    tensors = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
    return Checkpoint(ARCHITECTURE, tensors, Card(run=f"run-{seed}", **card))


@pytest.fixture
def zoo(tmp_path):
    return Zoo.create(tmp_path / "zoo")


def test_what_is_added_comes_back(zoo):
    card = {
        "task": "digits",
        "metrics": (Metric("accuracy", 0.9, "test", "d"), Metric("accuracy", 0.8, "validation", "d")),
        "hyperparameters": {"learning_rate": 0.1, "frozen": True, "huge": 2**70, "note": None},
        "parents": ("ab",),
        "tags": ("x", "y"),
        "origin": "trained",
        "split": "test",
    }
    checkpoint = network(0, **card)
    assert zoo.add([checkpoint, network(1)], name=["first", "second"]) == [checkpoint.id, network(1).id]
    row, _ = Zoo.open(zoo.path).query()
    assert (row.id, row.name, row.architecture) == (checkpoint.id, "first", "weightgen/mlp?hidden=2")
    assert (row.task, row.origin, row.run, row.split, row.tags) == ("digits", "trained", "run-0", "test", ("x", "y"))
    assert row.parameters == checkpoint.parameters
    assert row.metrics == {"accuracy": 0.9, "validation.accuracy": 0.8}
    assert row.hyperparameters == card["hyperparameters"]
    loaded = row.load()
    assert loaded.card == checkpoint.card and loaded.id == checkpoint.id
    assert all(torch.equal(loaded.tensor(name), tensor) for name, tensor in checkpoint.state_dict().items())


def test_doubles_are_passed_over(zoo):
    ids = zoo.add([network(0), network(1), network(0)])
    assert ids[0] == ids[2] and len(zoo) == 2
    assert zoo.add([network(1), network(2)])[0] == ids[1] and len(zoo) == 3


def test_small_networks_are_packed_into_few_files(zoo, monkeypatch):
    monkeypatch.setattr(packing, "BLOB_NETWORKS", 4)
    zoo.add(network(seed) for seed in range(10))
    assert len(list((zoo.path / "blobs").iterdir())) == 3
    assert [row.run for row in zoo] == [f"run-{seed}" for seed in range(10)]
    assert [row.load().id for row in zoo] == [network(seed).id for seed in range(10)]


def test_more_blobs_than_are_kept_open(zoo, monkeypatch):
    monkeypatch.setattr(packing, "BLOB_NETWORKS", 1)
    monkeypatch.setattr(module, "OPEN_BLOBS", 2)
    zoo.add(network(seed) for seed in range(5))
    for _ in range(2):
        assert [row.load().id for row in zoo] == [network(seed).id for seed in range(5)]
        assert all(row.load().state_dict() for row in zoo)


def test_loading_by_id_name_or_beginning(zoo):
    first, second = zoo.add([network(0), network(1)], name=lambda checkpoint: f"net-{checkpoint.card.run}")
    for name in (first, first[:8], "net-run-0"):
        assert zoo.load(name).id == first
    assert zoo.row(second).name == "net-run-1"
    with pytest.raises(UnknownNameError, match="net-run-0"):
        zoo.load("net-rum-0")
    with pytest.raises(UnknownNameError, match="unknown network"):
        zoo.load("")


def test_a_name_belongs_to_one_network(zoo):
    zoo.add([network(0)], name=["one"])
    for checkpoints, names in (([network(1)], ["one"]), ([network(1), network(2)], ["two", "two"])):
        with pytest.raises(DuplicateNameError, match="belongs to another"):
            zoo.add(checkpoints, name=names)
    assert len(zoo) == 1


def test_bulk_loading(zoo):
    ids = zoo.add(network(seed, task="even" if seed % 2 == 0 else "odd") for seed in range(4))
    states = zoo.state_dicts("task = 'even'")
    assert list(states) == [ids[0], ids[2]]
    assert torch.equal(states[ids[2]]["head.bias"], network(2).tensor("head.bias"))


def test_a_loaded_tensor_is_the_callers_own(zoo):
    (key,) = zoo.add([network(0)])
    zoo.load(key).tensor("head.bias").zero_()
    assert zoo.load(key).tensor("head.bias").any()


def test_the_digest_is_of_the_networks_not_of_their_order(zoo, tmp_path):
    other = Zoo.create(tmp_path / "other")
    zoo.add([network(0), network(1)])
    other.add([network(1)])
    assert zoo.digest != other.digest
    other.add([network(0)], name=["named"])
    assert zoo.digest == other.digest


def test_an_add_that_fails_changes_nothing(zoo, monkeypatch):
    monkeypatch.setattr(packing, "BLOB_NETWORKS", 2)
    zoo.add([network(0)])

    def stopped():
        yield network(1)
        yield network(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        zoo.add(stopped())
    assert [row.run for row in Zoo.open(zoo.path)] == ["run-0"]
    zoo.add(network(seed) for seed in range(4))
    assert [row.load().id for row in zoo] == [network(seed).id for seed in range(4)]


ADD = """
import sys
sys.path.insert(0, {tests!r})
from test_zoo import Zoo, network
zoo = Zoo.open({path!r})
for seed in range({first}, {first} + 40):
    zoo.add([network(seed)])
"""


def test_two_processes_add_at_once(zoo):
    folder = os.path.dirname(__file__)
    scripts = [ADD.format(tests=folder, path=str(zoo.path), first=first) for first in (0, 20)]
    processes = [subprocess.Popen([sys.executable, "-c", script]) for script in scripts]
    assert [process.wait() for process in processes] == [0, 0]
    assert sorted(row.load().id for row in zoo) == sorted(network(seed).id for seed in range(60))


def test_a_killed_add_loses_nothing_and_can_be_repeated(zoo):
    script = ADD.format(tests=os.path.dirname(__file__), path=str(zoo.path), first=0)
    process = subprocess.Popen([sys.executable, "-c", script])
    while not len(zoo):
        assert process.poll() is None, "it ended without adding anything"
        time.sleep(0.01)
    process.kill()
    process.wait()
    again = Zoo.open(zoo.path)
    before = [row.load().id for row in again]
    assert before == [network(seed).id for seed in range(len(before))]
    again.add(network(seed) for seed in range(40))
    assert len(again) == 40


def test_a_read_only_folder_can_be_read(zoo, monkeypatch):
    zoo.add([network(0)])
    zoo.catalogue.close()
    zoo.path.chmod(0o555)
    (zoo.path / "catalogue.db").chmod(0o444)
    if os.geteuid() == 0:
        # The superuser may write everywhere.
        monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    before = sorted(os.listdir(zoo.path))
    read = Zoo.open(zoo.path)
    assert [row.load().id for row in read.query("run = 'run-0'")] == [network(0).id]
    assert sorted(os.listdir(zoo.path)) == before
    with pytest.raises(OutputError, match="read-only"):
        read.add([network(1)])
    zoo.path.chmod(0o755)


def test_closing_leaves_no_files_beside_the_catalogue(zoo):
    zoo.add([network(0)])
    zoo.catalogue.close()
    assert sorted(os.listdir(zoo.path)) == ["blobs", "catalogue.db", "embeddings"]


def test_a_thousand_networks_take_about_a_second(zoo):
    zoo.add(network(seed) for seed in range(1000))
    started = time.perf_counter()
    assert sum(len(row.load().state_dict()) for row in zoo) == 4000
    assert time.perf_counter() - started < 5  # generous: the machine may be busy


def test_a_damaged_blob_is_noticed(zoo):
    zoo.add([network(0)])
    (blob,) = (zoo.path / "blobs").iterdir()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    with pytest.raises(CorruptFileError, match="does not match its digest"):
        next(iter(zoo)).load().state_dict()
    blob.unlink()
    with pytest.raises(CorruptFileError, match="damaged"):
        next(iter(Zoo.open(zoo.path))).load().state_dict()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("UPDATE models SET blob = '../../secret.safetensors'", "outside the zoo"),
        ("UPDATE models SET card = '{'", "card cannot be read"),
        ("UPDATE models SET card = '[]'", "wrong entry"),
        ("UPDATE tensors SET shape = '{'", "shapes cannot be read"),
        ("UPDATE tensors SET shape = '3'", "shapes cannot be read"),
        ("PRAGMA user_version = 99", "newer weightgen"),
        ("PRAGMA application_id = 1", "not the catalogue"),
    ],
)
def test_a_hostile_catalogue_is_refused(zoo, change, text):
    zoo.add([network(0)])
    zoo.catalogue.close()
    with sqlite3.connect(zoo.path / "catalogue.db") as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute(change)
    connection.close()
    with pytest.raises(CorruptFileError, match=text):
        next(iter(Zoo.open(zoo.path))).load().state_dict()


def test_a_catalogue_that_is_no_database_is_refused(zoo):
    (zoo.path / "catalogue.db").write_bytes(b"not a database" * 100)
    with pytest.raises(CorruptFileError, match="catalogue is damaged"):
        Zoo.open(zoo.path)


def test_creating_and_opening_name_what_is_wrong(zoo, tmp_path):
    with pytest.raises(OutputError, match="the zoo exists"):
        Zoo.create(zoo.path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingDataError, match="not a zoo"):
        Zoo(tmp_path / "empty")


def test_an_empty_zoo(zoo):
    assert len(zoo) == 0 and list(zoo) == [] and zoo.state_dicts() == {}
    assert zoo.query("metrics.accuracy > 0.5").count() == 0
    assert repr(zoo).endswith("0 networks)")
