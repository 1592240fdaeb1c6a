import json

import pytest
import torch

from weightgen.architecture import Architecture
from weightgen.checkpoint import Card, Checkpoint, Metric
from weightgen.cli import main


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(0)
    architecture = Architecture.parse("weightgen/cnn?channels=3,5")
    card = Card(task="digits", metrics=(Metric("accuracy", 0.5, "test", "d"),), origin="trained")
    Checkpoint(architecture, architecture.build().state_dict(), card).save(tmp_path / "one.safetensors")
    return str(tmp_path / "one.safetensors")


def test_evaluate_as_json(file, capsys):
    assert main(["evaluate", file, "--task", "digits", "--split", "validation", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result) == {"task", "split", "examples", "metrics"}
    assert (result["task"], result["split"], result["examples"]) == ("digits", "validation", 200)
    assert 0 <= result["metrics"]["accuracy"] <= 1


def test_evaluate_as_text(file, capsys):
    assert main(["evaluate", file, "--task", "digits"]) == 0
    assert capsys.readouterr().out.startswith("accuracy 0.")


def test_a_network_with_other_outputs_is_refused(file, capsys):
    assert main(["evaluate", file, "--task", "digits/3v8"]) == 1
    assert "got 10; expected 2" in capsys.readouterr().err


def test_inspect_as_json(file, capsys):
    assert main(["inspect", file, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {"architecture", "parameters", "tensors", "groups", "frozen", "card"} <= set(result)
    assert result["architecture"] == "weightgen/cnn?channels=3,5"
    assert result["parameters"] == sum(torch.Size(tensor["shape"]).numel() for tensor in result["tensors"])
    assert result["tensors"][0] == {"name": "conv1.weight", "shape": [3, 1, 3, 3], "dtype": "float32"}
    assert [group["size"] for group in result["groups"]] == [3, 5]
    assert result["groups"][1]["members"][-1] == {"tensor": "head.weight", "axis": 1, "block": 4}
    assert result["frozen"] == ["head.bias"]
    assert result["card"]["metrics"][0]["value"] == 0.5


def test_inspect_as_text(file, capsys):
    assert main(["inspect", file]) == 0
    printed = capsys.readouterr().out
    assert "weightgen/cnn?channels=3,5" in printed and "accuracy 0.5000 (test)" in printed
    assert "head.weight[1] × 4" in printed and "frozen: head.bias" in printed


def test_without_known_groups_all_is_frozen(tmp_path, capsys):
    architecture = Architecture.parse("timm/test_resnet?num_classes=4")
    state = architecture.build().state_dict()
    Checkpoint(architecture, state).save(tmp_path / "other.safetensors")
    assert main(["inspect", str(tmp_path / "other.safetensors"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["groups"] == [] and result["frozen"] == list(state)
