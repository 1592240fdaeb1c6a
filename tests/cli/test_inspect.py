import json

import pytest
import torch

from weightgen.architecture import Architecture
from weightgen.checkpoint import Card, Checkpoint, Metric
from weightgen.cli import main


@pytest.fixture
def file(tmp_path):
    architecture = Architecture.parse("weightgen/cnn?channels=3,5")
    card = Card(task="digits", metrics=(Metric("accuracy", 0.5, "test", "d"),), origin="trained")
    Checkpoint(architecture, architecture.build().state_dict(), card).save(tmp_path / "one.safetensors")
    return str(tmp_path / "one.safetensors")


def as_json(arguments, capsys):
    assert main(["inspect", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_checkpoint_as_json(file, capsys):
    result = as_json([file], capsys)
    assert {"architecture", "parameters", "tensors", "groups", "frozen", "card"} <= set(result)
    assert result["architecture"] == "weightgen/cnn?channels=3,5"
    assert result["parameters"] == sum(torch.Size(tensor["shape"]).numel() for tensor in result["tensors"])
    assert result["tensors"][0] == {"name": "conv1.weight", "shape": [3, 1, 3, 3], "dtype": "float32"}
    assert [group["size"] for group in result["groups"]] == [3, 5]
    assert result["groups"][1]["members"][-1] == {"tensor": "head.weight", "axis": 1, "block": 4}
    assert {"tensor": "head.bias", "axis": 0, "reason": "an output of the network"} in result["frozen"]
    assert result["card"]["metrics"][0]["value"] == 0.5


def test_a_checkpoint_as_text(file, capsys):
    assert main(["inspect", file]) == 0
    printed = capsys.readouterr().out
    assert "weightgen/cnn?channels=3,5" in printed and "accuracy 0.5000 (test)" in printed
    assert "head.weight[1] × 4" in printed
    assert "an output of the network  head.weight[0], head.bias[0]" in printed


def test_a_recipe_in_the_place_of_a_file(capsys):
    result = as_json(["timm/test_vit?num_classes=4"], capsys)
    assert result["architecture"] == "timm/test_vit?num_classes=4" and result["card"]["metrics"] == []
    heads = next(group for group in result["groups"] if group["members"][0].get("indices") and group["kin"] is None)
    assert heads["members"][0]["tensor"] == "blocks.0.attn.qkv.weight"
    assert len(heads["members"][0]["indices"]) == heads["size"]


def test_alike_groups_are_one_row_and_long_lists_are_cut(capsys):
    assert main(["inspect", "timm/test_vit?num_classes=4"]) == 0
    rows = [
        line for line in capsys.readouterr().out.splitlines() if "blocks.0.attn.qkv.weight[0] 2 each from 0" in line
    ]
    assert [row.split()[:2] for row in rows] == [["2", "32"]]


def test_part_of_a_tensor_is_said_to_be_one(capsys):
    result = as_json(["timm/resnext50_32x4d?num_classes=4"], capsys)
    members = [member for group in result["groups"] for member in group["members"] if "within" in member]
    member = next(member for member in members if member["tensor"] == "layer1.0.conv2.weight")
    assert member["axis"] == 1 and member["within"] == {"axis": 0, "start": 0, "stop": 4}


def test_what_cannot_be_traced_is_all_frozen_with_the_reason(capsys, monkeypatch):
    from weightgen.errors import ArchitectureError
    from weightgen.structure import tracing

    def fail(*_):
        raise ArchitectureError("torch.export cannot trace the network")

    monkeypatch.setattr(tracing, "trace_axes", fail)
    result = as_json(["weightgen/mlp?hidden=9"], capsys)
    assert result["groups"] == []
    assert {"tensor": "hidden1.weight", "axis": 0, "reason": "torch.export cannot trace the network"} in result[
        "frozen"
    ]


@pytest.mark.parametrize(
    ("what", "error"), [("nowhere.safetensors", "no such file"), ("timm/resnet1", "unknown timm model 'resnet1'")]
)
def test_neither_file_nor_recipe(what, error, capsys):
    assert main(["inspect", what]) == 1
    assert error in capsys.readouterr().err


def test_a_foreign_file_of_unknown_architecture_shows_its_tensors(tmp_path, capsys):
    torch.save({"first": torch.zeros(2, 3), "second": torch.zeros(4)}, tmp_path / "foreign.pt")
    result = as_json([str(tmp_path / "foreign.pt")], capsys)
    assert result["architecture"].startswith("unknown?shapes=") and result["parameters"] == 10
    assert [tensor["name"] for tensor in result["tensors"]] == ["first", "second"]
    assert result["groups"] == []
    assert [(axis["tensor"], axis["axis"]) for axis in result["frozen"]] == [("first", 0), ("first", 1), ("second", 0)]
    assert all("the architecture is unknown" in axis["reason"] for axis in result["frozen"])
