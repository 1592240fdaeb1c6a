import json

import pytest
import torch

from weightgen.architecture import Architecture
from weightgen.checkpoint import Checkpoint
from weightgen.cli import main


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(0)
    architecture = Architecture.parse("weightgen/cnn?channels=8,6")
    Checkpoint(architecture, architecture.build().state_dict()).save(tmp_path / "one.safetensors")
    return str(tmp_path / "one.safetensors")


def test_a_morph_as_json(file, tmp_path, capsys):
    out = tmp_path / "half.safetensors"
    assert main(["morph", file, "--width", "0.5", "--task", "digits", "--out", str(out), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {"path", "method", "architecture", "parameters", "macs", "before", "after"} <= set(result)
    assert set(result["before"]) == {"parameters", "macs", "metrics"} and set(result["after"]) == {"metrics"}
    made = Checkpoint.load(out)
    assert (result["path"], result["method"], result["parameters"]) == (str(out), "prune", made.parameters)
    assert result["architecture"] == str(made.architecture) == "weightgen/cnn?channels=4,3"
    assert made.card.metric("accuracy") == result["after"]["metrics"]["accuracy"]
    made.build()


def test_the_same_seed_writes_the_same_bytes(file, tmp_path):
    for name in ("a", "b"):
        command = ["morph", file, "--width", "0.5", "--method", "random", "--seed", "4"]
        assert main([*command, "--out", str(tmp_path / f"{name}.safetensors")]) == 0
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_widths_by_name_and_budgets_in_thousands(file, tmp_path, capsys):
    out = str(tmp_path / "new.safetensors")
    assert main(["morph", file, "--width", "conv2=0.5", "--out", out]) == 0
    assert "channels=8,3" in capsys.readouterr().out
    assert main(["morph", file, "--params", "0.5k", "--out", out, "--force", "--json"]) == 0
    assert 400 < json.loads(capsys.readouterr().out)["parameters"] <= 500


def test_what_was_not_done_is_said_on_stderr(tmp_path, capsys):
    torch.manual_seed(0)
    architecture = Architecture.parse("weightgen/resnet?blocks=1,1&width=4&input=1,8,8")
    Checkpoint(architecture, architecture.build().state_dict()).save(tmp_path / "one.safetensors")
    out = str(tmp_path / "half.safetensors")
    assert main(["morph", str(tmp_path / "one.safetensors"), "--width", "0.5", "--out", out]) == 0
    captured = capsys.readouterr()
    assert "note: no task was named: norms were estimated on noise" in captured.err
    assert "before" in captured.out and "not measured" in captured.out


def test_a_file_without_a_recipe_is_morphed_once_it_is_named(tmp_path, capsys):
    from safetensors.torch import save_file

    save_file({"a.weight": torch.zeros(3, 4), "b.weight": torch.zeros(2, 3)}, tmp_path / "bare.safetensors")
    command = ["morph", str(tmp_path / "bare.safetensors"), "--width", "0.5", "--out", str(tmp_path / "x.safetensors")]
    assert main(command) == 1
    assert "name its architecture, as in --architecture" in capsys.readouterr().err
    assert main([*command, "--architecture", "weightgen/mlp?hidden=3"]) == 1
    assert "is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--width", "0"], "a width must be above 0"),
        (["--width", "conv2"], "not a width"),
        (["--width", "0.5", "--width", "conv2=1"], "expected one factor, or NAME=FACTOR"),
        (["--params", "many"], "not a number"),
        ([], "which size?"),
        (["--width", "0.5", "--report", "r"], "a report measures networks; name the task with --task"),
        (["--width", "0.5", "--task", "digits/3v8"], "got 10; expected 2"),
    ],
)
def test_wrong_options_are_one_line(file, tmp_path, capsys, options, words):
    assert main(["morph", file, *options, "--out", str(tmp_path / "new.safetensors")]) == 1
    error = capsys.readouterr().err.strip()
    assert words in error and error.count("\n") == 0


def test_a_file_that_is_there_is_not_overwritten(file, capsys):
    assert main(["morph", file, "--width", "0.5", "--out", file]) == 1
    assert "overwrite it with --force" in capsys.readouterr().err


def test_a_recipe_is_morphed_with_random_weights_and_says_so(tmp_path, capsys):
    out = tmp_path / "wide.safetensors"
    assert main(["morph", "weightgen/mlp?hidden=8", "--width", "2", "--method", "net2net", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "weightgen/mlp?hidden=8 has no trained weights here; they are random" in printed.err
    assert str(Checkpoint.load(out).architecture) == "weightgen/mlp?hidden=16"
