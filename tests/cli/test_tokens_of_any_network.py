"""`weightgen tokenize` and `detokenize` with the tokenizers that ship, on networks of many kinds."""

import json
import os
from pathlib import Path

import pytest
import torch

from weightgen.checkpoint import Checkpoint
from weightgen.cli import main
from weightgen.formats import opening
from weightgen.formats.opening import open_network

DATA = Path(os.environ.get("WEIGHTGEN_DATA", ""))
FOREIGN = {
    "acasxu/ACASXU_run2a_1_1_batch_2000.nnet": None,
    "estool/biped.cma.1.96.best.json": None,
    "rl_agents/a2c/Hopper-v3_1/Hopper-v3.zip": None,
    "nerf/chair/checkpoint155000.ckpt": "coarse",
}


def there_and_back(source: str, folder: Path, capsys, *options: str) -> tuple[dict, Checkpoint]:
    tokens, again = str(folder / "tokens.safetensors"), str(folder / "again.safetensors")
    assert main(["tokenize", source, "--out", tokens, "--json", *options]) == 0
    result = json.loads(capsys.readouterr().out)
    assert main(["detokenize", tokens, "--out", again]) == 0
    capsys.readouterr()
    return result, Checkpoint.load(again)


@pytest.mark.skipif(not DATA.joinpath("acasxu").is_dir(), reason="WEIGHTGEN_DATA holds no foreign checkpoints")
@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_checkpoints(name, tmp_path, capsys):
    options = ["--part", FOREIGN[name]] if FOREIGN[name] else []
    result, after = there_and_back(str(DATA / name), tmp_path, capsys, *options)
    before = open_network(DATA / name, FOREIGN[name])
    assert after.shapes == before.shapes and after.architecture == before.architecture
    assert result["snr_db"] > 10 and 3 < result["bits_per_weight"] < 6
    if after.architecture.known:
        after.build()


def test_a_model_of_timm_by_its_name(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(opening, "HUB", ("127.0.0.1", 9))  # nobody answers there
    name = "timm/test_resnet"
    result, after = there_and_back(name, tmp_path, capsys)
    assert result["weights"] == "random" and result["snr_db"] > 14
    before = open_network(name)
    assert after.shapes == before.shapes
    counters = [key for key, (kind, _) in before.shapes.items() if kind == "int64"]
    assert counters and all(torch.equal(after.tensor(key), before.tensor(key)) for key in counters)
    after.build()


def test_a_network_of_the_starter_zoo_gets_the_behavioural_one(tmp_path, capsys):
    from weightgen import Zoo

    path = tmp_path / "one.safetensors"
    next(iter(Zoo.open("starter").query("task = 'digits'").limit(1))).load().save(path)
    result, after = there_and_back(str(path), tmp_path, capsys)
    assert result["bits_per_weight"] < 1
    assert main(["tokenize", str(path), "--tokenizer", "general", "--json"]) == 0
    assert 3 < json.loads(capsys.readouterr().out)["bits_per_weight"] < 4.2


def test_the_behavioural_one_refuses_what_it_was_not_trained_on(capsys):
    assert main(["tokenize", "weightgen/cnn?channels=5", "--tokenizer", "starter"]) == 1
    assert "names no task" in capsys.readouterr().err


def test_codes_of_the_general_one_are_refused_by_the_behavioural_one(tmp_path, capsys):
    tokens, out = str(tmp_path / "tokens.safetensors"), str(tmp_path / "out.safetensors")
    assert main(["tokenize", "weightgen/cnn", "--tokenizer", "general", "--out", tokens]) == 0
    assert main(["detokenize", tokens, "--tokenizer", "starter", "--out", out]) == 1
    assert "codes that do not fit" in capsys.readouterr().err and not Path(out).exists()
