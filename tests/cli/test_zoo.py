import json
import subprocess
import sys

import pytest
import torch

from weightgen.architecture import Architecture
from weightgen.checkpoint import Card, Checkpoint, Metric
from weightgen.cli.zoo import app
from weightgen.errors import OutputError, QueryError
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


def test_help_shows_an_example_of_each_and_loads_no_torch():
    code = (
        "import sys, contextlib\n"
        "from weightgen.cli.zoo import app\n"
        "for name in ('create', 'add', 'list', 'query', 'show', 'train', 'export'):\n"
        "    app([name, '--help'], result_action='return_value')\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("Example: weightgen zoo") == 7
