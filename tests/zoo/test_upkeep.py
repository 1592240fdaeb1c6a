import json
import os

import pytest
import torch
from safetensors.torch import load_file

from weightgen.architecture import Architecture
from weightgen.checkpoint import Card, Checkpoint, Metric
from weightgen.errors import OutputError, UnknownNameError
from weightgen.zoo import Zoo, packing
from weightgen.zoo.export import export_huggingface, export_parquet, export_safetensors

ARCHITECTURE = Architecture.parse("weightgen/mlp?hidden=2")


def network(seed: int) -> Checkpoint:
    random = torch.Generator().manual_seed(seed)
    tensors = {name: torch.randn(shape, generator=random) for name, shape in ARCHITECTURE.parameter_shapes().items()}
    metrics = (Metric("accuracy", seed / 10, "test", "d"),)
    return Checkpoint(ARCHITECTURE, tensors, Card(task="digits", metrics=metrics, hyperparameters={"seed": seed}))


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "BLOB_NETWORKS", 3)
    zoo = Zoo.create(tmp_path / "zoo")
    zoo.add([network(seed) for seed in range(7)], name=[f"n{seed}" for seed in range(7)])
    return zoo


def blobs(zoo) -> list[str]:
    return sorted(os.listdir(zoo.path / "blobs"))


def test_verify_finds_what_is_damaged(zoo):
    assert zoo.verify().to_json() == {"networks": 7, "damaged": {}, "orphans": []}
    row = zoo.row("n1")
    path = zoo.path / "blobs" / row._blob
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    (zoo.path / "blobs" / "stray").write_bytes(b"x")
    found = Zoo(zoo.path).verify()
    assert len(found.damaged) == 1 and found.orphans == ["stray"]
    assert "does not match its digest" in next(iter(found.damaged.values()))
    with zoo.catalogue.transaction() as connection:
        connection.execute("UPDATE tensors SET digest = ? WHERE model = 7 AND position = 0", ("0" * 32,))
    assert len(Zoo(zoo.path).verify().damaged) == 2


def test_what_is_removed_is_gone_and_its_space_given_back(zoo):
    before = blobs(zoo)
    assert zoo.remove("n0", "n3", "n4", "n5") == [network(seed).id for seed in (0, 3, 4, 5)]
    assert [row.name for row in zoo] == ["n1", "n2", "n6"] and blobs(zoo) == before
    assert zoo.query("matches 'n0'").count() == 0 and len(zoo.query().nearest(network(0), 9)) == 3
    result = zoo.gc()
    assert result["files"] == 2 and result["repacked"] == 2 and result["bytes"] > 0
    assert len(blobs(zoo)) == 2 and zoo.verify().to_json() == {"networks": 3, "damaged": {}, "orphans": []}
    assert [row.load().id for row in zoo] == [network(seed).id for seed in (1, 2, 6)]
    assert zoo.gc() == {"files": 0, "bytes": 0, "repacked": 0}
    zoo.add([network(0)])
    assert len(zoo.query().nearest(network(0), 9)) == 4


def test_removing_is_all_or_nothing(zoo):
    with pytest.raises(UnknownNameError, match="n0"):
        zoo.remove("n1", "n00")
    assert len(zoo) == 7


def test_a_file_that_may_be_entered_soon_is_kept(zoo):
    stray = zoo.path / "blobs" / "stray"
    stray.write_bytes(b"x")
    assert zoo.gc()["files"] == 0 and stray.exists()
    os.utime(stray, (0, 0))
    assert zoo.gc()["files"] == 1 and not stray.exists()


def test_a_read_only_zoo_is_left_alone(zoo, monkeypatch):
    monkeypatch.setattr(zoo.catalogue, "writable", False)
    for call in (lambda: zoo.remove("n1"), zoo.gc, lambda: zoo.query().freeze("x")):
        with pytest.raises(OutputError, match="read-only"):
            call()


def test_exports(zoo, tmp_path):
    export_safetensors(zoo.load("n1"), tmp_path / "n1.safetensors")
    loaded = load_file(tmp_path / "n1.safetensors")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in network(1).state_dict().items())
    export_huggingface(zoo.row("n2"), tmp_path / "folder")
    assert sorted(os.listdir(tmp_path / "folder")) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    assert config["architecture_recipe"] == str(ARCHITECTURE) and config["hyperparameters"] == {"seed": 2}
    assert "| accuracy | 0.2 |" in (tmp_path / "folder" / "README.md").read_text()
    assert export_parquet(zoo.query("seed > 4"), tmp_path / "zoo.parquet") == 2
    from pyarrow import parquet

    assert parquet.read_table(tmp_path / "zoo.parquet")["name"].to_pylist() == ["n5", "n6"]
    for call in (
        lambda force: export_safetensors(zoo.load("n1"), tmp_path / "n1.safetensors", force),
        lambda force: export_huggingface(zoo.row("n1"), tmp_path / "folder", force),
        lambda force: export_parquet(zoo.query(), tmp_path / "zoo.parquet", force),
    ):
        with pytest.raises(OutputError, match="--force"):
            call(False)
        call(True)
    assert json.loads((tmp_path / "folder" / "config.json").read_text())["hyperparameters"] == {"seed": 1}
