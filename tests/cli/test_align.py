import json

import pytest
import torch

from weightgen import Architecture, Checkpoint
from weightgen.cli import main


@pytest.fixture
def pair(tmp_path):
    """Two files of one architecture."""
    architecture = Architecture.parse("weightgen/mlp?hidden=6")
    paths = []
    for seed in range(2):
        torch.manual_seed(seed)
        paths.append(tmp_path / f"{seed}.safetensors")
        Checkpoint(architecture, architecture.build().state_dict()).save(paths[-1])
    return paths


@pytest.mark.parametrize("task", [[], ["--task", "digits"]])
def test_distances_are_reported_and_the_network_written(pair, tmp_path, capsys, task):
    out = tmp_path / "aligned.safetensors"
    assert main(["align", *map(str, pair), "--out", str(out), "--json", *task]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["path"] == str(out) and result["architecture"] == "weightgen/mlp?hidden=6"
    assert result["method"] == ("activations" if task else "weights") and result["groups"] == 1
    assert result["distance"]["after"] > 0 and (task or result["distance"]["after"] < result["distance"]["before"])
    images = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(Checkpoint.load(out).build()(images), Checkpoint.load(pair[0]).build()(images))


def test_nothing_is_written_or_overwritten_unasked(pair, tmp_path, capsys):
    before = sorted(tmp_path.iterdir())
    assert main(["align", *map(str, pair)]) == 0
    assert capsys.readouterr().out.startswith("distance ") and sorted(tmp_path.iterdir()) == before
    content = pair[1].read_bytes()
    assert main(["align", *map(str, pair), "--out", str(pair[1])]) == 1
    assert "--out exists already" in capsys.readouterr().err and pair[1].read_bytes() == content


def test_a_missing_reference_is_one_line(pair, capsys):
    assert main(["align", str(pair[0]), "nothing.safetensors"]) == 1
    assert capsys.readouterr().err == "error: no such file or folder; in nothing.safetensors\n"
