"""`weightgen train tokenizer SOURCES…`: a tokenizer for any network, from zoos and checkpoints."""

import pytest

from weightgen.cli import main
from weightgen.tokenizers import GeneralTokenizer, WeightTokenizer

SIZES = ("--chunk", "4", "--levels", "2", "--codebook", "16", "--beam", "2")


@pytest.fixture(scope="module")
def fitted(pico, tmp_path_factory):
    folder = tmp_path_factory.mktemp("general")
    checkpoint = str(folder / "one.safetensors")
    pico.zoo.load("digits-cnn-4-s000").save(checkpoint)
    out = folder / "codes"
    assert main(["train", "tokenizer", str(pico.root / "zoo/pico"), checkpoint, "--out", str(out), *SIZES]) == 0
    return out


def test_from_a_zoo_and_a_checkpoint(fitted, pico):
    tokenizer = WeightTokenizer.from_pretrained(fitted)
    assert isinstance(tokenizer, GeneralTokenizer)
    train = len(list(pico.zoo.query("split = 'train'")))
    learned = [{"name": "pico", "networks": train}, {"name": "one.safetensors", "networks": 1}]
    assert tokenizer.provenance["sources"] == learned
    card = (fitted / "README.md").read_text(encoding="utf-8")
    assert "perplexity, of 16" in card and "validation runs" in card and "weightgen train tokenizer pico" in card
    assert sorted(path.name for path in fitted.iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_what_is_there_is_left_alone_without_force(fitted, pico, capsys):
    before = (fitted / "model.safetensors").read_bytes()
    assert main(["train", "tokenizer", str(pico.root / "zoo/pico"), "--out", str(fitted), *SIZES]) == 1
    assert "--force" in capsys.readouterr().err and (fitted / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["nowhere.pt"], "no such file"),
        (["weightgen/cnn", "--quantiser", "scalar", "--chunk", "16", "--levels", "1"], "no one code"),
        (["weightgen/cnn", "--groups", "3"], "groups"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(words, text, tmp_path, capsys):
    assert main(["train", "tokenizer", *words, "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert text in error and error.count("\n") == 1
    assert not (tmp_path / "out" / "model.safetensors").exists()
