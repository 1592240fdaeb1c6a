import itertools

import pytest
import torch

from weightgen.errors import CorruptFileError, MissingDataError, OutputError
from weightgen.storage import atomic, read_header, read_shapes, read_tensor, read_tensors, write_tensors


@pytest.fixture
def tensors():
    return {"weight": torch.arange(6.0).reshape(2, 3), "half": torch.ones(3).half(), "count": torch.tensor(7)}


@pytest.fixture
def path(tmp_path, tensors):
    path = tmp_path / "some.safetensors"
    write_tensors(path, tensors, {"kind": "test", "text": "äöü"})
    return path


def test_what_is_written_is_read(path, tensors):
    header, found = read_tensors(path)
    assert header == {"kind": "test", "text": "äöü"}
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) and found[name].dtype == tensors[name].dtype for name in found)
    assert read_shapes(path) == {"weight": ("float32", (2, 3)), "half": ("float16", (3,)), "count": ("int64", ())}


def test_the_same_content_gives_the_same_bytes(path, tensors, tmp_path):
    write_tensors(tmp_path / "again.safetensors", dict(reversed(tensors.items())), {"text": "äöü", "kind": "test"})
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_tensors_that_share_memory_are_written(tmp_path):
    stack = torch.arange(6.0).reshape(2, 3)
    write_tensors(tmp_path / "shared.safetensors", {"a": stack[0], "b": stack[0], "c": stack[1]}, {})
    found = read_tensors(tmp_path / "shared.safetensors")[1]
    assert found["a"].tolist() == found["b"].tolist() == [0, 1, 2] and found["c"].tolist() == [3, 4, 5]


def test_every_flipped_bit_is_noticed(path, tensors):
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        try:
            _, found = read_tensors(path)
        except CorruptFileError:
            continue
        # The case of a hexadecimal digit in an escape sequence may change, since it means the same.
        assert whole[position : position + 1].isalpha()
        assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_every_truncation_is_noticed(path):
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptFileError, match="damaged"):
            read_tensors(path)


def test_a_wrong_digest_is_noticed_for_one_tensor(path):
    _, digests = read_header(path)
    assert read_tensor(path, "count", digests["count"]).item() == 7
    with pytest.raises(CorruptFileError, match="'count' does not match its digest"):
        read_tensor(path, "count", digests["weight"])


def test_foreign_and_missing_files_are_named(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CorruptFileError, match="not a file of weightgen"):
        read_header(tmp_path / "foreign.safetensors")
    with pytest.raises(MissingDataError, match="no such file"):
        read_header(tmp_path / "none.safetensors")


@pytest.mark.parametrize("body", ["[1]", '{"version": "1", "header": {}, "digests": {}}', "[" * 100_000])
def test_hostile_headers_with_a_true_digest_are_refused(tmp_path, body):
    import hashlib
    import json

    from safetensors.torch import save_file

    sealed = json.dumps({"body": body, "digest": hashlib.sha256(body.encode()).hexdigest()})
    save_file({"a": torch.ones(1)}, tmp_path / "hostile.safetensors", metadata={"weightgen": sealed})
    with pytest.raises(CorruptFileError, match="header cannot be read"):
        read_header(tmp_path / "hostile.safetensors")


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic(path) as temporary:
        temporary.write_text("half of the n")
        raise KeyboardInterrupt
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="cannot write"), atomic(tmp_path / "file" / "below"):
        pass
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot write"), atomic(tmp_path / "folder") as temporary:
        temporary.write_text("a folder is in the way")
    assert not list(itertools.chain(tmp_path.glob(".*"), (tmp_path / "folder").iterdir()))
