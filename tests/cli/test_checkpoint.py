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
