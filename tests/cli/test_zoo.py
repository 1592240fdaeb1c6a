import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from weightgen.architecture import Architecture
from weightgen.checkpoint import Card, Checkpoint, Metric
from weightgen.cli.zoo import app
from weightgen.errors import CorruptFileError, OutputError, QueryError
from weightgen.zoo import Zoo

KEYS = {"id", "name", "architecture", "task", "parameters", "metrics", "hyperparameters", "tags"}


@pytest.fixture
def files(tmp_path):
    architecture = Architecture.parse("weightgen/mlp?hidden=2")
    for index, name in enumerate(("poor", "good")):
        tensors = {each: torch.full(shape, 0.1 + index) for each, shape in architecture.parameter_shapes().items()}
        card = Card("digits", (Metric("accuracy", 0.2 + 0.7 * index, "test", "d"),), {"seed": index}, tags=("small",))
        Checkpoint(architecture, tensors, card).save(tmp_path / f"{name}.safetensors")
    return [str(tmp_path / "poor.safetensors"), str(tmp_path / "good.safetensors")]


@pytest.fixture
def call(capsys):
    def run(*words: str) -> str:
        app(list(words), result_action="return_value")
        return capsys.readouterr().out

    return run


@pytest.fixture
def zoo(files, tmp_path, call):
    folder = str(tmp_path / "zoo")
    call("create", folder)
    call("add", folder, *files)
    return folder


def test_create_and_add(zoo):
    assert [row.name for row in Zoo.open(zoo)] == ["poor", "good"]
    with pytest.raises(OutputError, match="the zoo exists"):
        app(["create", zoo], result_action="return_value")


def test_query_as_json(zoo, call):
    rows = json.loads(call("query", "metrics.accuracy > 0.5", "--zoo", zoo, "--json"))
    assert [row["name"] for row in rows] == ["good"] and set(rows[0]) >= KEYS
    assert rows[0]["metrics"] == {"accuracy": pytest.approx(0.9)} and rows[0]["tags"] == ["small"]
    rows = json.loads(call("query", "", "--zoo", zoo, "--order", "-metrics.accuracy", "--limit", "1", "--json"))
    assert [row["name"] for row in rows] == ["good"]
    with pytest.raises(QueryError):
        app(["query", "metrics.acc > 0.5", "--zoo", zoo], result_action="return_value")


def test_list_as_table_and_json(zoo, call):
    text = call("list", zoo)
    assert "poor" in text and "good" in text
    assert [row["name"] for row in json.loads(call("list", zoo, "--json"))] == ["poor", "good"]


def test_show(zoo, call):
    shown = json.loads(call("show", "good", "--zoo", zoo))
    assert shown["card"]["task"] == "digits"
    assert {"name": "head.bias", "shape": [10], "dtype": "float32"} in shown["tensors"]


def test_export_gives_back_what_was_added(zoo, call, files, tmp_path):
    out = str(tmp_path / "out.safetensors")
    assert call("export", "good", "--zoo", zoo, "--out", out).strip() == out
    assert (tmp_path / "out.safetensors").read_bytes() == (tmp_path / "good.safetensors").read_bytes()
    with pytest.raises(OutputError, match="--force"):
        app(["export", "poor", "--zoo", zoo, "--out", out], result_action="return_value")
    call("export", "poor", "--zoo", zoo, "--out", out, "--force")
    assert Checkpoint.load(out).card.metric("accuracy") == pytest.approx(0.2)


def test_train(tmp_path, call):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'name = "pico"\n[[population]]\ntask = "digits"\narchitecture = "weightgen/mlp?hidden=2"\n'
        "networks = 2\nsteps = 3\n"
    )
    result = json.loads(call("train", str(recipe), "--out", str(tmp_path / "zoo"), "--json"))
    assert result["networks"] == 2 and result["digest"] == Zoo.open(result["path"]).digest


def test_query_as_csv_with_columns_and_explained(zoo, call):
    text = call(
        "query", "seed >= 0", "--zoo", zoo, "--order", "-seed", "--csv", "--columns", "name,seed,metrics.accuracy"
    )
    lines = text.splitlines()
    assert lines[0] == "name,seed,metrics.accuracy" and lines[1].startswith("good,1,0.8999") and len(lines) == 3
    assert "poor" in call("query", "tag = 'small'", "--zoo", zoo, "--columns", "name,task")
    assert "SELECT number" in call("query", "seed = 1", "--zoo", zoo, "--explain")
    assert call("query", "seed = 9", "--zoo", zoo, "--csv") == "\n"


def test_nearest(zoo, call, files):
    found = json.loads(call("nearest", "good", "--zoo", zoo, "--json"))
    assert [one["name"] for one in found] == ["poor"] and found[0]["distance"] > 0
    assert json.loads(call("nearest", files[0], "seed = 0", "--zoo", zoo, "--json"))[0]["distance"] == 0
    assert "poor" in call("nearest", "good", "--zoo", zoo, "--k", "1")


def test_facets(zoo, call):
    assert json.loads(call("facets", "task", "tag", "--zoo", zoo, "--json")) == {
        "task": [{"value": "digits", "count": 2}], "tag": [{"value": "small", "count": 2}],
    }  # fmt: skip
    assert "weightgen/mlp" in call("facets", "--zoo", zoo, "--where", "metrics.accuracy > 0.5")


def test_lineage(zoo, call, tmp_path):
    assert call("lineage", "good", "--zoo", zoo) == "good  ←\n"
    assert json.loads(call("lineage", "good", "--zoo", zoo, "--json"))["edges"] == []
    assert call("lineage", "good", "--zoo", zoo, "--out", str(tmp_path / "graph.dot")).strip().endswith("graph.dot")
    assert (tmp_path / "graph.dot").read_text().startswith("digraph lineage {")
    call("lineage", "good", "--zoo", zoo, "--out", str(tmp_path / "graph.png"))
    assert (tmp_path / "graph.png").read_bytes().startswith(b"\x89PNG")


def test_verify_remove_gc_and_freeze(zoo, call):
    assert call("verify", zoo) == "2 networks read, 0 damaged, 0 orphaned files\n"
    assert json.loads(call("freeze", "mine", "seed = 1", "--zoo", zoo, "--json"))["networks"] == 1
    (removed,) = json.loads(call("remove", zoo, "poor", "--json"))
    assert len(removed) == 32 and len(Zoo.open(zoo)) == 1
    assert json.loads(call("gc", zoo, "--json"))["repacked"] == 1
    blob = next(tmp for tmp in Path(zoo, "blobs").iterdir())
    blob.write_bytes(blob.read_bytes()[:-1])
    with pytest.raises(CorruptFileError, match="1 networks are damaged"):
        app(["verify", zoo], result_action="return_value")


def test_export_for_others(zoo, call, tmp_path):
    call("export", "good", "--zoo", zoo, "--out", str(tmp_path / "plain.safetensors"), "--safetensors")
    call("export", "good", "--zoo", zoo, "--out", str(tmp_path / "folder"), "--huggingface")
    call("export", "seed = 1", "--zoo", zoo, "--out", str(tmp_path / "table.parquet"), "--parquet")
    assert (tmp_path / "folder" / "config.json").is_file() and (tmp_path / "table.parquet").is_file()


def test_ingest(call, tmp_path):
    for index in range(3):
        save_file({"w": torch.full((4,), float(index))}, tmp_path / f"net_{index}.safetensors")
    (tmp_path / "bad.safetensors").write_bytes((tmp_path / "net_0.safetensors").read_bytes()[:-1])
    zoo, pattern = str(tmp_path / "zoo"), "net_{number:d}"
    text = call("ingest", str(tmp_path), "--dry-run", "--metadata-pattern", pattern)
    assert "number 2" in text and "failed: " in text and not Path(zoo).exists()
    words = ("--zoo", zoo, "--tag", "a", "--tag", "b", "--metric", "accuracy=0.5", "--metric", "validation.loss=2")
    text = call("ingest", str(tmp_path), *words, "--task", "mnist", "--parent", "base", "--metadata-pattern", pattern)
    assert text.startswith("3 networks added, 0 known, 0 sources read before\n") and "bad.safetensors" in text
    row = Zoo.open(zoo).row("net_2")
    assert (row.task, row.tags, row.card.parents) == ("mnist", ("a", "b"), ("base",))
    assert row.metrics == {"accuracy": 0.5, "validation.loss": 2} and row.hyperparameters == {"number": 2}
    report = json.loads(call("ingest", str(tmp_path), "--zoo", zoo, "--json"))
    assert (report["added"], report["done"], len(report["failed"])) == (0, 3, 1)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--zoo", "z"], "nothing to ingest"), (["x"], "which zoo"),
        (["x", "--zoo", "z", "--metric", "a"], "not a metric"),
        (["x", "--zoo", "z", "--metric", "a=nan"], "not a metric"),
        (["x", "--dry-run", "--metadata-pattern", "{"], "cannot read the pattern"),
    ],
)  # fmt: skip
def test_ingest_names_what_is_wrong(words, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(QueryError, match=text):
        app(["ingest", *words], result_action="return_value")


NAMES = (
    "create", "add", "ingest", "list", "query", "show", "nearest", "facets", "lineage", "train", "freeze", "verify",
    "export", "remove", "gc",
)  # fmt: skip


def test_help_shows_an_example_of_each_and_loads_no_torch():
    code = (
        "import sys, contextlib\n"
        "from weightgen.cli.zoo import app\n"
        f"for name in {NAMES}:\n"
        "    app([name, '--help'], result_action='return_value')\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("Example: weightgen zoo") == len(NAMES)
