import json
import os
import shutil
import subprocess
import sys

import pytest

from weightgen.checkpoint import Checkpoint
from weightgen.cli import main

PROMPT = "a small CNN that reads handwritten digits"
UNDERSTOOD = "understood: task digits · architecture weightgen/cnn?channels=4 · convolutional network (cnn) · small"


@pytest.fixture
def call(pico, capsys):
    """Runs `weightgen generate`; gives the exit code, stdout and stderr."""

    def run(*words: str, generator: str | None = None) -> tuple[int, str, str]:
        code = main(["generate", *words, "--generator", generator or pico.generator])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def is_one_line(text: str) -> bool:
    return text.startswith("error: ") and text.count("\n") == 1 and "unexpected" not in text


def test_json_has_the_keys_that_are_promised(call, tmp_path):
    out = tmp_path / "one.safetensors"
    code, printed, error = call(PROMPT, "--out", str(out), "--seed", "4", "--json")
    assert (code, error) == (0, UNDERSTOOD + "\n")
    result = json.loads(printed)
    assert {"request", "networks", "zoo"} <= set(result)
    assert set(result["request"]) == {"task", "architecture", "constraints"}
    assert result["request"]["constraints"]["size"] == "small"
    assert set(result["zoo"]) == {"accuracy_mean", "count"}
    (network,) = result["networks"]
    assert set(network) == {
        "path", "architecture", "task", "parameters", "metrics", "novelty", "seconds"
    }  # fmt: skip
    assert set(network["metrics"]) == {"accuracy"}
    assert set(network["novelty"]) == {"distance_ratio", "error_iou", "token_replay"}

    loaded = Checkpoint.load(out)
    loaded.build()
    assert (network["path"], network["architecture"]) == (str(out), str(loaded.architecture))
    assert (network["task"], network["parameters"]) == ("digits", loaded.parameters)
    assert network["metrics"]["accuracy"] == loaded.card.metric("accuracy")
    assert network["novelty"] == loaded.card.made_with["novelty"]
    assert [path.name for path in tmp_path.iterdir()] == ["one.safetensors"]


def test_text_is_a_table(call, tmp_path):
    code, printed, _ = call(PROMPT, "--out", str(tmp_path / "one.safetensors"))
    assert code == 0
    title, columns, row = printed.splitlines()
    assert title.strip() == "digits · weightgen/cnn?channels=4"
    assert "accuracy" in columns and "distance" in columns
    assert row.startswith(str(tmp_path / "one.safetensors")) and " 210 " in row


def test_several_networks_make_a_folder(call, tmp_path):
    out = tmp_path / "three"
    code, printed, _ = call(PROMPT, "--num", "3", "--out", str(out), "--json")
    assert code == 0
    paths = [network["path"] for network in json.loads(printed)["networks"]]
    assert paths == [str(out / f"000{index}.safetensors") for index in range(3)]
    assert len({Checkpoint.load(path).id for path in paths}) == 3 == len(list(out.iterdir()))
    code, printed, error = call(PROMPT, "--num", "3", "--out", str(out))
    assert (code, printed) == (1, "") and is_one_line(error) and "--out exists already" in error


def test_the_same_line_writes_the_same_tensors_in_another_process(call, pico, tmp_path):
    assert call(PROMPT, "--out", str(tmp_path / "here.safetensors"), "--seed", "9")[0] == 0
    words = ["generate", PROMPT, "--generator", pico.generator, "--seed", "9", "--json"]
    words += ["--out", str(tmp_path / "there.safetensors")]
    done = subprocess.run([sys.executable, "-m", "weightgen", *words], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, UNDERSTOOD + "\n")
    assert json.loads(done.stdout)["networks"][0]["path"] == str(tmp_path / "there.safetensors")
    assert (tmp_path / "there.safetensors").read_bytes() == (tmp_path / "here.safetensors").read_bytes()


def test_a_file_that_is_there_is_left_alone_without_force(call, tmp_path):
    out = tmp_path / "one.safetensors"
    out.write_bytes(b"precious")
    code, printed, error = call(PROMPT, "--out", str(out))
    assert (code, printed) == (1, "") and is_one_line(error) and "--force" in error
    assert out.read_bytes() == b"precious"
    assert call(PROMPT, "--out", str(out), "--force")[0] == 0
    Checkpoint.load(out).build()
    assert [path.name for path in tmp_path.iterdir()] == ["one.safetensors"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--out", "taken/one.safetensors"], "--out cannot be written"),
        (["--out", "folder"], "--out is a folder"),
        (["--num", "2", "--out", "taken"], "--out must be a folder"),
    ],
)
def test_a_place_that_cannot_be_written_is_said_before_the_work(call, tmp_path, monkeypatch, words, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    code, printed, error = call(PROMPT, *words)
    assert (code, printed) == (1, "") and is_one_line(error) and line in error
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder", "taken"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_said_before_the_work(call, tmp_path):
    tmp_path.chmod(0o500)
    code, _, error = call(PROMPT, "--out", str(tmp_path / "one.safetensors"))
    tmp_path.chmod(0o700)
    assert code == 1 and is_one_line(error) and "--out cannot be written" in error


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([""], "the prompt is empty"),
        (["a network that sings"], "names no known task"),
        (["a CNN for MNIST"], "writes no networks for the task mnist"),
        (["handwritten digits", "--task", "digts"], "digits"),
        (["handwritten digits, under 100 parameters"], "the smallest is"),
        (["handwritten digits", "--arch", "weightgen/cnn?channels=5"], "weightgen/cnn?channels=4"),
        (["handwritten digits", "--arch", "weightgen/cnn?chanels=4"], "channels"),
        ([PROMPT, "--num", "0"], "num is too small"),
        ([PROMPT, "--num", "-3"], "num is too small"),
        ([PROMPT, "--top-p", "0"], "impossible sampling"),
        ([PROMPT, "--temperature", "nan"], "impossible sampling"),
    ],
)
def test_what_cannot_be_done_is_one_line(call, tmp_path, words, line):
    code, printed, error = call(*words, "--out", str(tmp_path / "one.safetensors"))
    assert (code, printed) == (1, "") and line in error
    assert is_one_line(error.removeprefix(error[: error.index("error: ")]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["checkpoints", "tokenizers"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "emptied", "gone"])
def test_a_damaged_artefact_is_one_line_and_leaves_nothing(call, pico, tmp_path, kind, name, damage):
    for each in ("zoo", "checkpoints", "tokenizers"):
        shutil.copytree(pico.root / each, tmp_path / each)
    path = tmp_path / kind / "pico" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes({"flipped": content, "truncated": content[: len(content) // 2]}.get(damage, b""))
    if damage == "gone":
        path.unlink()
    out = tmp_path / "out"
    out.mkdir()
    generator = str(tmp_path / "checkpoints/pico")
    code, printed, error = call(PROMPT, "--out", str(out / "one.safetensors"), generator=generator)
    assert (code, printed) == (1, "")
    assert is_one_line(error.replace(UNDERSTOOD + "\n", "")) and str(tmp_path) in error
    assert list(out.iterdir()) == []


def is_the_same(damaged: bytes, content: bytes) -> bool:
    """The last digit of a float may change without changing the number."""
    try:
        return json.loads(damaged) == json.loads(content)
    except ValueError:
        return False


def test_any_flipped_byte_of_a_config_is_one_line(call, pico, tmp_path):
    """What is read of it before the model is opened must not fall over what a damaged one may hold."""
    for each in ("checkpoints", "tokenizers"):
        shutil.copytree(pico.root / each, tmp_path / each)
    path = tmp_path / "checkpoints/pico/config.json"
    content = path.read_bytes()
    begin = content.index(b'"cells"')
    for place in range(begin, begin + 900, 7):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 7)
        if is_the_same(damaged, content):
            continue
        path.write_bytes(damaged)
        code, _, error = call("digits", "--out", str(tmp_path / "x.safetensors"), generator=str(path.parent))
        assert code == 1 and "unexpected" not in error, (place, error)
    assert not (tmp_path / "x.safetensors").exists()


def test_a_generator_that_is_not_there_is_one_line(call, tmp_path):
    code, printed, error = call(PROMPT, "--out", str(tmp_path / "x.safetensors"), generator="nowhere")
    assert (code, printed) == (1, "") and is_one_line(error) and "unknown generator" in error
