import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import save_file

from weightgen.errors import MissingDataError, OutputError, QueryError
from weightgen.zoo import Zoo, packing
from weightgen.zoo import ingest as module
from weightgen.zoo.ingest import Facts, ingest, preview


def _module(name: str, path: Path):
    specification = importlib.util.spec_from_file_location(name, path)
    found = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(found)
    return found


EXAMPLES = _module("ingest_examples", Path(__file__).parent.parent / "formats" / "examples.py").EXAMPLES
killing = _module("killing", Path(__file__).parent / "killing.py")


@pytest.fixture
def zoo(tmp_path):
    return Zoo.create(tmp_path / "zoo")


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "sources"
    path.mkdir()
    return path


def write(folder: Path, number: int, first: int = 0) -> None:
    """Small networks, a file each."""
    for seed in range(first, first + number):
        values = torch.randn(30, generator=torch.Generator().manual_seed(seed))
        save_file({"a.weight": values[:20].reshape(4, 5), "b": values[20:]}, folder / f"net_{seed:03d}.safetensors")


def test_every_format_becomes_networks_of_one_zoo(zoo, folder):
    for name, make in EXAMPLES.items():
        (folder / name).mkdir()
        make(folder / name)
    report = zoo.ingest(folder, tags=("all",))
    # safetensors, sharded, torch, legacy, npz, packed, onnx, the agent and the adapter hold the same tensors.
    assert not report.failed and len(report.added) == 7 and report.known == 8
    assert len(zoo) == 7 and zoo.verify().damaged == {}
    assert {row.format for row in zoo} >= {"huggingface", "timm", "nnet", "estool", "npy"}
    assert all(row.tags[-1] == "all" for row in zoo)
    assert zoo.query("format = 'huggingface' and hyperparameters.model_type = 'bert'").count() == 1
    again = zoo.ingest(folder)
    assert (again.added, again.done, again.known) == ([], 15, 0)


def test_what_the_caller_says_is_kept(zoo, folder):
    write(folder, 6)
    facts = Facts("mnist", (("accuracy", "test", 0.9),), ("x",), ("base",), "net_{number:d}")
    report = ingest(zoo, [folder], facts)
    assert len(report.added) == 6 and report.unmatched == 0
    assert [row.name for row in zoo.query("number between 2 and 4 and tag = 'x'")] == ["net_002", "net_003", "net_004"]
    row = zoo.row("net_003")
    assert (row.task, row.metrics, row.card.parents, row.run) == ("mnist", {"accuracy": 0.9}, ("base",), "net_003")
    assert zoo.query("parent = 'base' and metrics.accuracy > 0.8 and task = 'mnist'").count() == 6


def test_one_bad_file_does_not_stop_the_rest(zoo, folder):
    write(folder, 4)
    good = (folder / "net_001.safetensors").read_bytes()
    (folder / "net_001.safetensors").write_bytes(good[:-3])
    torch.save({"w": torch.tensor([float("nan"), 1.0])}, folder / "nan.pt")
    (folder / "text.txt").write_text("hello")
    report = ingest(zoo, [folder])
    ((path, reason),) = report.failed.items()
    assert path == str(folder / "net_001.safetensors") and "damaged" in reason
    assert len(report.added) == 4 and report.skipped == {"of no format that is read": 1}
    assert [row.name for row in zoo.query("non_finite > 0")] == ["nan"]
    (folder / "net_001.safetensors").write_bytes(good)
    assert len(ingest(zoo, [folder]).added) == 1


def test_a_dry_run_writes_nothing(folder):
    write(folder, 2)
    report = preview([folder], Facts(pattern="net_{number:d}"))
    assert [one["hyperparameters"] for one in report.networks] == [{"number": 0}, {"number": 1}]
    assert sorted(os.listdir(folder.parent)) == ["sources"]


def test_names_that_are_taken(zoo, folder):
    for index, name in enumerate(("one", "two")):
        (folder / name).mkdir()
        write(folder / name, 1, index * 100)
        (folder / name / f"net_{index * 100:03d}.safetensors").rename(folder / name / "net.safetensors")
    ingest(zoo, [folder / "one"])
    ingest(zoo, [folder / "two"])
    first, second = (row.name for row in zoo)
    assert first == "net" and second.startswith("net~")


def test_big_networks_are_written_tensor_by_tensor(zoo, folder, monkeypatch):
    monkeypatch.setattr(packing, "BIG_BYTES", 100)
    write(folder, 3)
    ingest(zoo, [folder])
    assert len(list((zoo.path / "blobs").iterdir())) == 3
    assert zoo.verify().to_json() == {"networks": 3, "damaged": {}, "orphans": []}
    small = Zoo.create(zoo.path.parent / "small")
    monkeypatch.undo()
    ingest(small, [folder])
    assert [row.id for row in small] == [row.id for row in zoo]
    # A blob is a source of its own, whichever way it was written.
    for source in (zoo, small):
        copy = Zoo.create(source.path.parent / f"copy-of-{source.path.name}")
        ingest(copy, [source.path / "blobs"])
        assert sorted(row.name for row in copy) == ["net_000", "net_001", "net_002"] and copy.digest == zoo.digest


def test_workers_give_the_same_catalogue(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_SOURCES", 5)
    write(folder, 23)
    zoos = [Zoo.create(tmp_path / name) for name in ("one", "two")]
    for workers, zoo in zip((1, 2), zoos, strict=True):
        calls: list[tuple] = []
        report = ingest(zoo, [folder], workers=workers, progress=lambda *call, calls=calls: calls.append(call[:2]))
        assert len(report.added) == 23 and calls == [(5, 23), (10, 23), (15, 23), (20, 23), (23, 23)]
    assert killing.content(zoos[0].path) == killing.content(zoos[1].path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked, so that each is killed at a chosen call")
def test_an_ingest_that_is_killed_ends_as_if_it_had_not_been(folder, tmp_path, monkeypatch):
    # Restored afterwards; `killing.run` sets them.
    monkeypatch.setattr(module, "CHUNK_SOURCES", 4)
    monkeypatch.setattr(packing, "BIG_BYTES", 30_000)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    killing.write_sources(folder, 10, 3)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    calls = killing.run(whole, folder)
    stages = []
    for last in (calls // 20, calls // 4, calls // 2, calls // 3, calls // 5):
        assert killing.run_killed(killed, folder, last)
        stages.append(len(Zoo(killed)))
        assert Zoo(killed).verify().damaged == {}
    assert stages[0] == 0 and 0 < stages[-1] < 13 and stages == sorted(stages)
    killing.run(killed, folder)
    assert killing.content(killed) == killing.content(whole)
    Zoo(killed).gc(0)
    assert Zoo(killed).verify().to_json() == {"networks": 13, "damaged": {}, "orphans": []}
    torch.set_num_threads(threads)


INGEST = """
import sys
from weightgen.zoo import Zoo, ingest as module
from pathlib import Path
module.CHUNK_SOURCES = 4
module.ingest(Zoo(Path(sys.argv[1])), [sys.argv[2]])
"""


def test_two_ingests_at_once(folder, zoo):
    write(folder, 30)
    processes = [subprocess.Popen([sys.executable, "-c", INGEST, str(zoo.path), str(folder)]) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(zoo) == 30 and zoo.verify().damaged == {}
    assert {row.name for row in zoo} == {f"net_{seed:03d}" for seed in range(30)}


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, 700_000))
from weightgen.cli import main
sys.exit(main(["zoo", "ingest", sys.argv[2], "--zoo", sys.argv[1]]))
"""


def test_a_full_disk_is_named_and_keeps_what_was_entered(folder, zoo):
    write(folder, 3)
    ingest(zoo, [folder])
    values = {"w": torch.from_numpy(numpy.random.default_rng(0).normal(size=300_000))}
    save_file(values, folder / "zzz.safetensors")
    done = subprocess.run([sys.executable, "-c", FULL, str(zoo.path), str(folder)], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: cannot write") and done.stderr.count("\n") == 1
    assert len(zoo) == 3 and zoo.verify().damaged == {}
    assert len(ingest(zoo, [folder]).added) == 1


def test_a_read_only_zoo_and_paths_that_are_not_there(zoo, folder, monkeypatch):
    with pytest.raises(MissingDataError, match="nowhere"):
        ingest(zoo, [folder / "nowhere"])
    monkeypatch.setattr(zoo.catalogue, "writable", False)
    with pytest.raises(OutputError, match="read-only"):
        ingest(zoo, [folder])


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("net", "tells nothing"),
        ("{", "position 1"),
        ("{a:x}", "position 1"),
        ("{a}{a}", "position 4"),
        ("{a}" + "*" * 9 + "?*" * 9, "too loose"),
    ],
)
def test_patterns_that_cannot_be_read(pattern, text, folder):
    with pytest.raises(QueryError, match=text):
        preview([folder], Facts(pattern=pattern))


DATA = Path(os.environ.get("WEIGHTGEN_DATA", ""))
FOREIGN = ("acasxu", "estool", "rl_agents", "nerf", "taesd", "resnet_cifar10")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    if not os.environ.get("WEIGHTGEN_DATA") or not all((DATA / name).is_dir() for name in FOREIGN):
        pytest.skip("WEIGHTGEN_DATA does not name a folder with the six foreign zoos")
    zoo = Zoo.create(tmp_path_factory.mktemp("foreign") / "zoo")
    report = ingest(zoo, [DATA / "acasxu"], Facts(pattern="ACASXU_run2a_{advisory:d}_{tau:d}_*"))
    assert len(report.added) == 36 and not report.failed and not report.unmatched
    report = ingest(zoo, [DATA / name for name in FOREIGN[1:]])
    assert len(report.added) == 49 and not report.failed
    return zoo


def test_foreign_zoos_can_be_asked(foreign):
    assert foreign.query("advisory = 3 and tau <= 5").count() == 5
    assert {row.architecture for row in foreign.query("format = 'nnet'")} == {
        "weightgen/mlp?classes=5&hidden=50,50,50,50,50,50&input=5,1,1"
    }
    scores = foreign.query("format = 'estool' and metrics.mean_return is known")
    assert scores.count() == 10 and foreign.query("format = 'estool' and metrics.mean_return > 314").count() == 2
    agents = foreign.query("format = 'stable-baselines3'")
    assert agents.count() == 23 == foreign.query("algorithm = 'a2c' and learning_rate between 1e-4 and 1e-2").count()
    returns = foreign.query("algorithm = 'a2c' and metrics.mean_return is known").count()
    assert returns == 23
    assert foreign.row("a2c/Pendulum-v1_1/Pendulum-v1").hyperparameters["learning_rate_schedule"] == "linear"
    assert [row.name for row in foreign.query("metrics.psnr > 27 and name glob '*:fine'")] == [
        "hotdog/checkpoint100000:fine"
    ]
    assert foreign.query("format = 'torch' and has tensor '1.weight' with shape (64, *, 3, 3)").count() == 1
    assert foreign.query("matches 'FlexibleNeRFModel'").count() == 8


def test_foreign_networks_compute_what_they_should(foreign):
    network = foreign.load("ACASXU_run2a_1_1_batch_2000").build()
    lines = (DATA / "acasxu" / "ACASXU_run2a_1_1_batch_2000.nnet").read_text().splitlines()
    weight = torch.tensor([[float(one) for one in line.split(",") if one] for line in lines[10:60]])
    assert torch.equal(network.hidden1.weight, weight)
    residual = foreign.load("resnet20-12fca82f")
    assert str(residual.architecture) == "weightgen/resnet" and residual.parameters == 269_722
    assert residual.build()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.slow
def test_the_residual_network_reads_cifar(foreign):
    from weightgen.tasks import get_task

    if not (DATA / "cifar10_jpg.zip").is_file():
        pytest.skip("WEIGHTGEN_DATA does not name a folder with cifar10_jpg.zip")
    images, labels = get_task("cifar10").test()
    network = foreign.load("resnet20-12fca82f").build()
    # A fifth of the test set, which is sorted by class; scripts/benchmarks/foreign_zoos measures all of it.
    with torch.no_grad():
        right = (network(images[::5]).argmax(-1) == labels[::5]).double().mean().item()
    assert 0.79 < right < 0.83
