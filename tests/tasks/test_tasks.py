import os
import struct

import numpy
import pytest
import torch

from weightgen.architecture import Architecture
from weightgen.errors import CorruptFileError, MissingDataError, UnknownNameError
from weightgen.tasks import evaluate, get_task, task_names
from weightgen.tasks.vision import _read_idx


def test_digits_are_split_in_three_and_share_no_image():
    task = get_task("digits")
    assert [len(task.split(split)[1]) for split in ("train", "validation", "test")] == [1097, 200, 500]
    images, labels = task.train()
    assert images.shape == (1097, 1, 8, 8) and images.dtype == torch.float32
    steps, pixels = task.preprocessing, torch.tensor(task.arrays["train"][0])
    assert torch.allclose(images * steps.deviation + steps.mean, pixels / steps.scale, atol=1e-6)
    assert abs(images.mean()) < 0.02 and abs(images.std() - 1) < 0.02
    assert labels.dtype == torch.int64 and labels.unique().tolist() == list(range(10))
    assert task.digest == "f114e9b20cfac53e"


@pytest.mark.skipif("WEIGHTGEN_DATA" not in os.environ, reason="WEIGHTGEN_DATA does not name a folder with mnist/")
def test_mnist_has_its_70_000_images():
    task = get_task("mnist")
    assert [len(task.split(split)[1]) for split in ("train", "validation", "test")] == [55_000, 5_000, 10_000]
    images, _ = task.train()
    assert images.shape[1:] == task.input and abs(images.mean()) < 0.01 and abs(images.std() - 1) < 0.01


def test_a_subset_keeps_its_classes_and_numbers_them_anew():
    task, base = get_task("digits/3v8"), get_task("digits")
    assert task.classes == ("3", "8")
    (images, labels), (all_images, all_labels) = task.test(), base.test()
    kept = all_images[(all_labels == 3) | (all_labels == 8)]
    assert torch.equal(images, kept) and labels.sum() == (all_labels == 8).sum()
    assert task.digest != base.digest


def test_even_and_odd():
    labels, base = get_task("digits/even-odd").test()[1], get_task("digits").test()[1]
    assert torch.equal(labels, base % 2)


@pytest.mark.parametrize("name", ["digit", "digits/3v3", "digits/3v10", "digits/odd", "", "digits/3v8/even-odd"])
def test_unknown_tasks_are_named(name):
    with pytest.raises(UnknownNameError, match="unknown task"):
        get_task(name)


def test_known_names():
    assert {"digits", "mnist"} <= set(task_names())
    with pytest.raises(UnknownNameError, match="validation"):
        get_task("digits").split("valid")


def test_evaluation_counts_right_answers():
    task = get_task("digits")

    class Cheat(torch.nn.Module):
        """Knows the first 400 of the 500 answers."""

        def forward(self, images):
            labels = task.test()[1].clone()
            labels[400:] = (labels[400:] + 1) % 10
            return torch.nn.functional.one_hot(labels, 10).float()

    module = Cheat().train()
    expected = {"task": "digits", "split": "test", "examples": 500, "metrics": {"accuracy": 0.8}}
    assert evaluate(module, task) == expected
    assert module.training


def test_a_random_network_is_about_as_good_as_chance():
    torch.manual_seed(0)
    assert evaluate(Architecture.parse("weightgen/mlp").build(), get_task("digits"))["metrics"]["accuracy"] < 0.35


def write_idx(path, array, shape=None):
    shape = shape or array.shape
    path.write_bytes(struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + array.tobytes())


def test_idx_files_are_checked(tmp_path):
    array = numpy.arange(24, dtype=numpy.uint8).reshape(2, 3, 4)
    path = tmp_path / "some-idx3-ubyte"
    write_idx(path, array)
    assert numpy.array_equal(_read_idx(tmp_path, path.name), array)
    whole = path.read_bytes()
    for content in (whole[:-1], whole + b"x", whole[:7], b"", b"\x01" + whole[1:]):
        path.write_bytes(content)
        with pytest.raises(CorruptFileError, match="idx file"):
            _read_idx(tmp_path, path.name)
    write_idx(path, array, shape=(2**31, 2**31, 4))
    with pytest.raises(CorruptFileError, match="not a whole idx file"):
        _read_idx(tmp_path, path.name)


def test_a_damaged_gz_is_named(tmp_path):
    (tmp_path / "some-idx1-ubyte.gz").write_bytes(b"not a gzip file")
    with pytest.raises(CorruptFileError, match="cannot read"):
        _read_idx(tmp_path, "some-idx1-ubyte")
    with pytest.raises(MissingDataError, match="is missing"):
        _read_idx(tmp_path, "other-idx1-ubyte")


def test_missing_mnist_says_where_it_was_looked_for(tmp_path, monkeypatch):
    from weightgen.tasks.vision import mnist

    monkeypatch.setenv("WEIGHTGEN_DATA", str(tmp_path))
    with pytest.raises(MissingDataError, match=r"mnist.*WEIGHTGEN_DATA"):
        mnist().train()


def test_evaluation_leaves_the_statistics_of_norms_alone():
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(64), torch.nn.Linear(64, 10)).train()
    before = module[1].running_mean.clone()
    evaluate(module, get_task("digits"))
    assert torch.equal(module[1].running_mean, before) and module[1].num_batches_tracked == 0 and module.training
