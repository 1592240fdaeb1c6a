import json

import pytest

from weightgen.cli import main
from weightgen.generators.igpg import IGPG
from weightgen.tokenizers import WeightTokenizer
from weightgen.zoo import Zoo


@pytest.fixture(scope="module")
def trained(pico, tmp_path_factory):
    """A tokenizer and a generator from the command line, at full size but of one step each."""
    root = tmp_path_factory.mktemp("trained")
    zoo, tokenizer, out = str(pico.root / "zoo/pico"), str(root / "codes"), str(root / "deep/writer")
    assert main(["train", "tokenizer", "--zoo", zoo, "--out", tokenizer, "--steps", "1"]) == 0
    line = ["train", "igpg", "--zoo", zoo, "--tokenizer", tokenizer, "--out", out, "--steps", "1", "--seed", "3"]
    assert main(line) == 0
    return root


@pytest.mark.slow
def test_a_tokenizer_is_trained(pico, trained):
    found = WeightTokenizer.from_pretrained(trained / "codes")
    assert found.provenance["zoo"] == {"name": "pico", "digest": pico.zoo.digest}
    assert found.provenance["training"]["loop"]["steps"] == 1
    assert sorted(path.name for path in (trained / "codes").iterdir()) == [
        "README.md", "config.json", "model.safetensors"
    ]  # fmt: skip
    card = (trained / "codes/README.md").read_text()
    assert "weightgen train tokenizer --zoo" in card and "--steps 1 --seed 0" in card and pico.zoo.digest in card
    assert card.count("| digits |") == 2


@pytest.mark.slow
def test_a_generator_finds_its_tokenizer_wherever_it_stands(pico, trained):
    found = IGPG.from_pretrained(trained / "deep/writer")
    tokenizer = WeightTokenizer.from_pretrained(trained / "codes")
    assert found.tokenizer.provenance == tokenizer.provenance
    assert found.provenance["zoo"] == {"name": "pico", "digest": Zoo.open(pico.root / "zoo/pico").digest}
    cells = found.provenance["cells"]["digits"]
    assert [(cell["architecture"], cell["parameters"], cell["networks"]) for cell in cells] == [
        ("weightgen/mlp?hidden=8", 610, 4), ("weightgen/cnn?channels=4", 210, 4)
    ]  # fmt: skip
    card = (trained / "deep/writer/README.md").read_text()
    assert "--seed 3" in card and pico.zoo.digest in card and tokenizer.provenance["id"] in card
    # The card and the config speak of the same generator.
    assert json.loads((trained / "deep/writer/config.json").read_text())["provenance"] == found.provenance


@pytest.mark.slow
@pytest.mark.parametrize("name", ["codes", "deep/writer"])
def test_what_is_there_is_left_alone_without_force(pico, trained, capsys, name):
    before = (trained / name / "model.safetensors").read_bytes()
    command = "tokenizer" if name == "codes" else "igpg"
    line = ["train", command, "--zoo", str(pico.root / "zoo/pico"), "--out", str(trained / name), "--steps", "1"]
    assert main(line) == 1
    assert "there is one already" in capsys.readouterr().err
    assert (trained / name / "model.safetensors").read_bytes() == before


def test_an_empty_zoo_teaches_nothing(capsys, tmp_path):
    Zoo.create(tmp_path / "zoo")
    assert main(["train", "tokenizer", "--zoo", str(tmp_path / "zoo"), "--out", str(tmp_path / "out")]) == 1
    assert "the zoo has no training runs" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_zoo_that_is_not_there_is_named(capsys, tmp_path):
    assert main(["train", "tokenizer", "--zoo", "nowhere", "--out", str(tmp_path / "out")]) == 1
    assert "unknown zoo" in capsys.readouterr().err
