import dataclasses
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weightgen.architecture import Architecture
from weightgen.artefact import read_artefact, write_artefact
from weightgen.checkpoint import Card, Checkpoint
from weightgen.errors import CorruptFileError, MissingDataError, UnknownNameError
from weightgen.tokenizers import BehaviouralTokenizer, WeightTokens
from weightgen.training.population import unstack


@pytest.fixture(scope="module")
def saved(tokenizer, tmp_path_factory):
    """The three files of a tokenizer, name → content."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.provenance = {"seed": 0, "made": ["by", "a", "test"]}
    tokenizer.save_pretrained(folder, "# A pico tokenizer\n")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def folder_of(files: dict, folder):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def checkpoint_of(cell, index: int = 0) -> Checkpoint:
    return Checkpoint(cell.architecture, unstack(cell.tensors)[index], Card(task=cell.task))


def test_a_network_becomes_codes_and_codes_a_network(tokenizer, cell):
    tokens = tokenizer.encode(checkpoint_of(cell))
    # 8 rows of 65 values in four chunks of 20, then 10 rows of 9 values in one.
    assert tokens.codes.shape == (43, 2) and tokens.codes.dtype == torch.int64
    assert tokens.codes.min() >= 0 and tokens.codes.max() < 16
    decoded = Checkpoint(cell.architecture, tokenizer.decode(tokens))
    assert decoded.non_finite() == []
    assert decoded.build()(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


def test_networks_have_different_codes(tokenizer, cell):
    codes = tokenizer.encode_batch(cell.tensors, cell.architecture, cell.task)
    assert codes.shape == (8, 43, 2)
    assert len(codes.flatten(1).unique(dim=0)) == 8


def test_one_at_a_time_is_all_at_once(tokenizer, cell):
    codes = tokenizer.encode_batch(cell.tensors, cell.architecture, cell.task)
    together = tokenizer.decode_batch(codes, cell.architecture)
    tokens = tokenizer.encode(checkpoint_of(cell, 3))
    assert torch.equal(tokens.codes, codes[3])
    for name, tensor in tokenizer.decode(tokens).items():
        torch.testing.assert_close(tensor, together[name][3], rtol=1e-4, atol=1e-5)


def test_encoding_changes_nothing(tokenizer, cell):
    codec = tokenizer.codec(cell.architecture)
    before = {name: tensor.clone() for name, tensor in codec.state_dict().items()}
    first = tokenizer.encode(checkpoint_of(cell))
    assert torch.equal(tokenizer.encode(checkpoint_of(cell)).codes, first.codes)
    assert all(torch.equal(tensor, before[name]) for name, tensor in codec.state_dict().items())


def test_bits_per_weight(tokenizer, cell):
    assert tokenizer.bits_per_weight(cell.architecture) == 42 * 2 * math.log2(16) / 610


def test_a_saved_tokenizer_gives_the_same_codes_and_tensors(tokenizer, cell, saved, tmp_path):
    assert sorted(saved) == ["README.md", "config.json", "model.safetensors"]
    found = BehaviouralTokenizer.from_pretrained(folder_of(saved, tmp_path / "saved"))
    assert found.config == tokenizer.config and found.provenance == tokenizer.provenance
    codes = tokenizer.encode_batch(cell.tensors, cell.architecture, cell.task)
    assert torch.equal(found.encode_batch(cell.tensors, cell.architecture, cell.task), codes)
    expected = tokenizer.decode_batch(codes, cell.architecture)
    decoded = found.decode_batch(codes, cell.architecture)
    assert all(torch.equal(decoded[name], expected[name]) for name in expected)
    found.save_pretrained(tmp_path / "again", "# A pico tokenizer\n")
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == saved


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_flipped_bit_is_noticed(saved, tmp_path, name, data):
    content = bytearray(saved[name])
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    folder = folder_of(saved | {name: bytes(content)}, tmp_path / "flipped")
    with pytest.raises(CorruptFileError):
        BehaviouralTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_noticed(saved, tmp_path, name, share):
    cut = saved[name][: int(share * len(saved[name]))]
    folder = folder_of(saved | {name: cut}, tmp_path / "cut")
    with pytest.raises(CorruptFileError):
        BehaviouralTokenizer.from_pretrained(folder)


def test_a_missing_file_is_named(saved, tmp_path):
    for name in ("model.safetensors", "config.json"):
        folder = folder_of({other: saved[other] for other in saved if other != name}, tmp_path / name)
        with pytest.raises(MissingDataError):
            BehaviouralTokenizer.from_pretrained(folder)


def test_a_config_that_does_not_fit_its_tensors_is_refused(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "right")
    config, tensors = read_artefact(tmp_path / "right", "weight-tokenizer")
    for change in ({"hidden": 64}, {"unknown": 1}, {"code_width": 21}):
        folder = tmp_path / next(iter(change))
        write_artefact(folder, "weight-tokenizer", config | {"codec": config["codec"] | change}, tensors, "")
        with pytest.raises(CorruptFileError, match="not a tokenizer that this version can read"):
            BehaviouralTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda codes: codes.index_fill(0, torch.tensor([5]), 16),
        lambda codes: codes.index_fill(0, torch.tensor([5]), -1),
        lambda codes: codes[:-1],
        lambda codes: codes[:0],
        lambda codes: codes[:, :1],
        lambda codes: codes[None],
    ],
    ids=["too large", "negative", "too few", "none", "too few levels", "an axis too many"],
)
def test_codes_that_do_not_fit_are_refused(tokenizer, cell, change):
    tokens = tokenizer.encode(checkpoint_of(cell))
    with pytest.raises(CorruptFileError, match="codes that do not fit"):
        tokenizer.decode(dataclasses.replace(tokens, codes=change(tokens.codes)))


def test_an_architecture_that_was_not_seen_is_named_with_its_neighbours(tokenizer, cell):
    other = Architecture.parse("weightgen/mlp?hidden=9")
    match = r"weightgen/mlp\?hidden=9.*weightgen/mlp\?hidden=8"
    with pytest.raises(UnknownNameError, match=match):
        tokenizer.decode(WeightTokens(torch.zeros(1, 2, dtype=torch.int64), other))
    with pytest.raises(UnknownNameError, match=match):
        tokenizer.encode(Checkpoint(other, other.build().state_dict(), Card(task="digits")))


def test_a_network_without_a_known_task_is_refused(tokenizer, cell):
    with pytest.raises(UnknownNameError, match="names no task"):
        tokenizer.encode(Checkpoint(cell.architecture, unstack(cell.tensors)[0]))
    with pytest.raises(UnknownNameError, match="digits"):
        tokenizer.encode(Checkpoint(cell.architecture, unstack(cell.tensors)[0], Card(task="mnist")))


def test_it_knows_only_what_it_was_trained_on(tokenizer, cell):
    network = checkpoint_of(cell)
    assert tokenizer.knows(network) and not tokenizer.knows(network.replace_card(task="mnist"))
    for recipe in ("weightgen/mlp?hidden=9", "weightgen/resnet?blocks=1&width=4"):
        other = Architecture.parse(recipe)
        assert not tokenizer.knows(Checkpoint(other, other.build().state_dict(), Card(task=cell.task)))
    shapes = {"weight": torch.zeros(2, 2)}
    assert not tokenizer.knows(Checkpoint(Architecture.unknown({"weight": (2, 2)}), shapes, Card(task=cell.task)))
