import json

import pytest
import torch

from weightgen.artefact import part, read_artefact, write_artefact
from weightgen.errors import CorruptFileError, MissingDataError, OutputError

CONFIG = {"width": 3, "names": ["a", "b"], "nested": {"rate": 0.25, "note": None, "text": "naïve"}}
TENSORS = {"codec/weight": torch.arange(6.0).view(2, 3), "codec/bias": torch.zeros(2), "codecs": torch.ones(1)}


@pytest.fixture
def folder(tmp_path):
    write_artefact(tmp_path / "artefact", "toy", CONFIG, TENSORS, "# A toy\n")
    return tmp_path / "artefact"


def test_what_is_written_comes_back(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config, tensors = read_artefact(folder, "toy")
    assert config == {"kind": "toy", **CONFIG}
    assert list(tensors) == sorted(TENSORS)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())
    assert (folder / "README.md").read_text() == "# A toy\n"


def test_the_same_artefact_has_the_same_bytes(folder, tmp_path):
    write_artefact(tmp_path / "again", "toy", dict(reversed(CONFIG.items())), TENSORS, "# A toy\n")
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_an_artefact_can_be_written_over(folder):
    write_artefact(folder, "toy", {"width": 4}, {}, "")
    assert read_artefact(folder, "toy") == ({"kind": "toy", "width": 4}, {})


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(MissingDataError, match=str(folder)):
        read_artefact(folder, "toy")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(MissingDataError, match="no toy there.*nowhere"):
        read_artefact(tmp_path / "nowhere", "toy")


def test_an_artefact_of_another_kind_is_refused(folder):
    with pytest.raises(CorruptFileError, match="another kind.*got toy; expected car"):
        read_artefact(folder, "car")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, json.dumps({"kind": "toy", **CONFIG, "width": 4}).encode()],
    ids=["empty", "open", "list", "bytes", "deep", "changed"],
)  # fmt: skip
def test_a_config_that_is_not_the_models_own_is_refused(folder, content):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(CorruptFileError, match="config"):
        read_artefact(folder, "toy")


@pytest.mark.parametrize("place", [0, 20, -1])
def test_a_flipped_bit_of_the_model_is_noticed(folder, place):
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[place] ^= 4
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CorruptFileError, match="damaged|not a file of weightgen"):
        read_artefact(folder, "toy")


def test_the_model_of_another_artefact_is_refused(folder, tmp_path):
    write_artefact(tmp_path / "other", "toy", {**CONFIG, "width": 4}, TENSORS, "")
    (tmp_path / "other" / "model.safetensors").replace(folder / "model.safetensors")
    with pytest.raises(CorruptFileError, match="not the one the model was saved with"):
        read_artefact(folder, "toy")


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_artefact(tmp_path / "file" / "artefact", "toy", CONFIG, TENSORS, "")


def test_a_part_is_what_lies_under_its_prefix():
    assert sorted(part(TENSORS, "codec")) == ["bias", "weight"]
    assert part(TENSORS, "code") == {}
