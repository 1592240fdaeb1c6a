import json

import pytest

from weightgen.checkpoint import Checkpoint
from weightgen.cli import main
from weightgen.tasks import evaluate, get_task
from weightgen.tasks.changes import changed_task


def test_from_a_recipe_to_a_network(pico, tmp_path, capsys):
    folder = pico.hypernetwork("weightgen/cnn?channels=4")
    recipe, trained = str(pico.root / "cnn.toml"), str(tmp_path / "trained")
    assert main(["train", "hypernetwork", recipe, "--out", trained]) == 0
    assert "accuracy" in capsys.readouterr().out
    same = [(tmp_path / "trained/model.safetensors").read_bytes(), (pico.root / "hypernetworks/cnn/model.safetensors")]
    assert same[0] == same[1].read_bytes(), "the same recipe gives the same bytes"
    out = tmp_path / "one.safetensors"
    line = ["generate", "--generator", folder, "--condition", "rotation=30", "--out", str(out), "--json"]
    assert main(line) == 0
    printed = json.loads(capsys.readouterr().out)
    network = Checkpoint.load(out)
    assert network.card.made_with["condition"] == {"rotation": pytest.approx(30, abs=1e-4)}
    assert printed["request"]["task"] == "digits" and printed["zoo"]["count"] == 0
    turned = changed_task(get_task("digits"), {"rotation": 30.0})
    assert printed["networks"][0]["metrics"] == evaluate(network.build(), turned)["metrics"]
    assert network.card.metrics[0].digest != get_task("digits").digest, "turned images are other data"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--condition", "rotation=200"], "out of its range; in rotation; got 200; expected 0 to 180"),
        (["--condition", "angle=2"], "unknown condition 'angle'"),
        (["--condition", "rotation=20", "--num", "3"], "--condition gives the one network"),
        (["a network for digits"], "not asked in words"),
    ],
)
def test_bad_use(pico, tmp_path, capsys, options, text):
    folder = pico.hypernetwork("weightgen/cnn?channels=4")
    assert main(["generate", *options, "--generator", folder, "--out", str(tmp_path / "x")]) == 1
    assert text in capsys.readouterr().err
