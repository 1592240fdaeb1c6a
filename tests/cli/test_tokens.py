import json

import pytest
import torch

from weightgen.checkpoint import Checkpoint
from weightgen.cli import main
from weightgen.tokenizers import WeightTokens


@pytest.fixture
def file(pico, tmp_path):
    path = tmp_path / "one.safetensors"
    pico.zoo.load("digits-cnn-4-s000").save(path)
    return str(path)


@pytest.fixture
def call(pico, capsys):
    def run(*words: str) -> tuple[int, str, str]:
        code = main([*words, "--tokenizer", str(pico.root / "tokenizers/pico")])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_tokenize_as_json(pico, call, file, tmp_path):
    out = tmp_path / "one.tokens.safetensors"
    code, printed, error = call("tokenize", file, "--out", str(out), "--json")
    assert (code, error) == (0, "")
    result = json.loads(printed)
    assert {"path", "tokens", "levels", "bits_per_weight", "snr_db"} <= set(result)
    tokens, card = WeightTokens.load(out)
    network = Checkpoint.load(file)
    assert result["path"] == str(out) and card == network.card
    assert (result["tokens"], result["levels"]) == tuple(tokens.codes.shape)
    expected = pico.tokenizer.bits_per_weight(network.architecture)
    assert result["bits_per_weight"] == pytest.approx(expected, abs=1e-4) and result["bits_per_weight"] < 32
    assert torch.equal(tokens.codes, pico.tokenizer.encode(network).codes)


def test_tokenize_without_out_writes_nothing(call, file, tmp_path):
    code, printed, _ = call("tokenize", file)
    assert code == 0 and "bits_per_weight" in printed and "path" not in printed
    assert [path.name for path in tmp_path.iterdir()] == ["one.safetensors"]


def test_there_and_back(pico, call, file, tmp_path):
    tokens, again = str(tmp_path / "tokens.safetensors"), str(tmp_path / "again.safetensors")
    assert call("tokenize", file, "--out", tokens)[0] == 0
    code, printed, _ = call("detokenize", tokens, "--out", again, "--json")
    before, after = Checkpoint.load(file), Checkpoint.load(again)
    assert code == 0
    assert json.loads(printed) == {
        "path": again, "architecture": str(after.architecture), "parameters": after.parameters
    }  # fmt: skip
    assert after.architecture == before.architecture
    after.build()
    expected = pico.tokenizer.decode(WeightTokens.load(tokens)[0])
    assert all(torch.equal(tensor, expected[name]) for name, tensor in after.state_dict().items())
    assert after.card.task == "digits" and after.card.preprocessing == before.card.preprocessing
    assert before.card.metrics and after.card.metrics == (), "it was measured on another network"
    assert after.card.origin == "decoded"


@pytest.mark.parametrize("command", ["tokenize", "detokenize"])
@pytest.mark.parametrize("damage", [b"", b"garbage", b"\xff" * 64])
def test_a_bad_file_is_one_line_and_leaves_nothing(call, tmp_path, command, damage):
    (tmp_path / "bad.safetensors").write_bytes(damage)
    code, printed, error = call(command, str(tmp_path / "bad.safetensors"), "--out", str(tmp_path / "out.safetensors"))
    assert (code, printed) == (1, "") and error.count("\n") == 1
    assert "error: the file is damaged" in error and "bad.safetensors" in error
    assert [path.name for path in tmp_path.iterdir()] == ["bad.safetensors"]


def test_a_flipped_bit_in_the_codes_is_noticed(call, file, tmp_path):
    tokens = tmp_path / "tokens.safetensors"
    assert call("tokenize", file, "--out", str(tokens))[0] == 0
    content = bytearray(tokens.read_bytes())
    content[-5] ^= 1
    tokens.write_bytes(content)
    code, _, error = call("detokenize", str(tokens), "--out", str(tmp_path / "again.safetensors"))
    assert code == 1 and "'codes' does not match its digest" in error
    assert not (tmp_path / "again.safetensors").exists()


def test_a_network_is_no_tokens_and_tokens_are_no_network(call, file, tmp_path):
    tokens = str(tmp_path / "tokens.safetensors")
    call("tokenize", file, "--out", tokens)
    code, _, error = call("detokenize", file, "--out", str(tmp_path / "x.safetensors"))
    assert code == 1 and "not a file of tokens" in error
    code, _, error = call("tokenize", tokens, "--out", str(tmp_path / "x.safetensors"))
    assert code == 1 and "not a checkpoint" in error
    assert not (tmp_path / "x.safetensors").exists()


def test_an_unknown_architecture_is_named(pico, call, tmp_path):
    from weightgen.architecture import Architecture
    from weightgen.checkpoint import Card

    other = Architecture.parse("weightgen/cnn?channels=5")
    Checkpoint(other, other.build().state_dict(), Card("digits")).save(tmp_path / "other.safetensors")
    code, _, error = call("tokenize", str(tmp_path / "other.safetensors"))
    assert code == 1 and "channels=5" in error and "channels=4" in error


def test_what_is_there_is_left_alone_without_force(call, file, tmp_path):
    tokens, taken = str(tmp_path / "tokens.safetensors"), tmp_path / "taken"
    assert call("tokenize", file, "--out", tokens)[0] == 0
    taken.write_bytes(b"precious")
    for command, source in (("tokenize", file), ("detokenize", tokens)):
        code, _, error = call(command, source, "--out", str(taken))
        assert code == 1 and "--force" in error and taken.read_bytes() == b"precious"
    assert call("detokenize", tokens, "--out", str(taken), "--force")[0] == 0
    Checkpoint.load(taken).build()
