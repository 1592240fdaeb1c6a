"""Files that lie: none may take memory, run code, hang or reach outside its folder."""

import io
import json
import os
import pickle
import struct
import zipfile

import numpy
import pytest
import torch
from format_examples import EXAMPLES, NNET

from weightgen.errors import CorruptFileError, MissingDataError
from weightgen.formats import discover, format_of, read


def refused(path, match=None):
    with pytest.raises(CorruptFileError, match=match):
        for network in read(path):
            network.checkpoint.state_dict()


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("new", [True, False])
def test_code_in_a_pickle_is_not_run(tmp_path, new):
    marker = tmp_path / "run"
    torch.save({"weight": torch.ones(2), "evil": Evil(marker)}, tmp_path / "evil", _use_new_zipfile_serialization=new)
    (network,) = read(tmp_path / "evil")
    assert list(network.checkpoint.state_dict()) == ["weight"] and not marker.exists()
    torch.load(tmp_path / "evil", weights_only=False)
    assert marker.exists(), "the file was not as evil as it should have been"


def test_a_bare_pickle_is_refused_and_not_run(tmp_path):
    marker = tmp_path / "run"
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Evil(marker)))
    refused(tmp_path / "evil.pkl", "a pickle that torch did not write")
    assert not marker.exists()


def test_a_saved_module_gives_its_tensors_without_being_made(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    torch.save(module, tmp_path / "module.pt")
    (network,) = read(tmp_path / "module.pt")
    state = network.checkpoint.state_dict()
    assert all(torch.equal(state[name], one) for name, one in module.state_dict().items())


def test_views_and_parameters_and_ties(tmp_path):
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    saved = {
        "row": base[1], "column": base[:, 2], "turned": base.t(), "parameter": torch.nn.Parameter(base), "tied": base,
        "half": torch.ones(3, dtype=torch.bfloat16), "whole": torch.tensor(5), "none": torch.empty(0, 3),
        "truth": torch.tensor([True, False]),
    }  # fmt: skip
    for new in (True, False):
        torch.save(saved, tmp_path / "views", _use_new_zipfile_serialization=new)
        state = read(tmp_path / "views")[0].checkpoint.state_dict()
        assert set(state) == set(saved)
        assert all(torch.equal(state[name], one) and state[name].dtype == one.dtype for name, one in saved.items())


def test_two_networks_beside_each_other_and_bare_lists(tmp_path):
    torch.save({"G": {"w": torch.ones(2)}, "D": {"w": torch.zeros(2)}, "iter": 7}, tmp_path / "gan.pt")
    found = {one.part: one.checkpoint for one in read(tmp_path / "gan.pt")}
    assert set(found) == {"G", "D"} and found["D"].card.hyperparameters["iter"] == 7
    torch.save([torch.ones(2), torch.zeros(3)], tmp_path / "list.pt")
    assert list(read(tmp_path / "list.pt")[0].checkpoint.shapes) == ["tensor0", "tensor1"]
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    refused(tmp_path / "none.pt", "no network in it")


def test_a_tensor_that_reaches_beyond_its_storage(tmp_path):
    storage = torch.zeros(4)
    lie = {"weight": torch.as_strided(storage, (2, 2), (2, 1))}
    torch.save(lie, tmp_path / "honest.pt")
    content = (tmp_path / "honest.pt").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (name,) = [name for name in members if name.endswith("data.pkl")]
    # The shape (2, 2) and the stride (2, 1) are written as K\x02K\x02\x86 and K\x02K\x01\x86.
    assert members[name].count(b"K\x02K\x02\x86") == 1
    members[name] = members[name].replace(b"K\x02K\x02\x86", b"K\xffK\xff\x86")
    with zipfile.ZipFile(tmp_path / "lie.pt", "w") as archive:
        for each, value in members.items():
            archive.writestr(each, value)
    refused(tmp_path / "lie.pt", "shape")


def test_packed_torch_archives_and_zip_bombs(tmp_path):
    path = EXAMPLES["torch"](tmp_path)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as other:
        for name in archive.namelist():
            other.writestr(name, archive.read(name) + b"\0" * 100_000)
    refused(tmp_path / "packed.pt", "packed")


def test_paths_that_climb_out(tmp_path):
    secret = tmp_path / "secret.safetensors"
    EXAMPLES["safetensors"](tmp_path).rename(secret)
    folder = tmp_path / "inner"
    folder.mkdir()
    index = folder / "model.safetensors.index.json"
    for name in ("../secret.safetensors", str(secret), "..", "a/../../secret.safetensors"):
        index.write_text(json.dumps({"weight_map": {"one.bias": name}}))
        refused(index, "outside its folder")
    index.write_text(json.dumps({"weight_map": {"one.bias": "gone.safetensors"}}))
    with pytest.raises(MissingDataError, match=r"gone\.safetensors"):
        read(index)
    with zipfile.ZipFile(folder / "agent.zip", "w") as archive:
        archive.writestr("../../escaped", b"x")
        archive.writestr("policy.pth", b"x")
    refused(folder / "agent.zip")
    assert sorted(os.listdir(tmp_path)) == ["inner", "secret.safetensors"]


def test_external_data_of_onnx_lies_beside_the_model(tmp_path):
    import onnx

    path = EXAMPLES["onnx"](tmp_path)
    values = read(path)[0].checkpoint.state_dict()
    model = onnx.load(path)
    onnx.save(model, tmp_path / "outside.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (network,) = read(tmp_path / "outside.onnx")
    assert all(torch.equal(network.checkpoint.tensor(name), one) for name, one in values.items())
    model = onnx.load(tmp_path / "outside.onnx", load_external_data=False)
    for location in ("../w.bin", "/etc/passwd", ".", "nothing.bin"):
        model.graph.initializer[0].external_data[0].value = location
        (tmp_path / "bad.onnx").write_bytes(model.SerializeToString())
        refused(tmp_path / "bad.onnx", "not beside the model")


@pytest.mark.parametrize(
    "header",
    [
        {each: {"dtype": "F32", "shape": [2], "data_offsets": [at, at + 8]} for each, at in (("a", 0), ("b", 4))},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 800]}},
        {"a": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 12]}},
        {"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 12]}},
        {"a": {"dtype": "F32", "shape": [-3], "data_offsets": [0, 12]}},
        {"a": {"dtype": "F99", "shape": [3], "data_offsets": [0, 12]}},
        {"a": {"dtype": "F32", "shape": [3], "data_offsets": [12, 0]}},
    ],
)  # fmt: skip
def test_safetensors_with_lying_offsets(tmp_path, header):
    content = json.dumps(header).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(content)) + content + b"\0" * 12)
    refused(tmp_path / "x", "damaged")


def test_safetensors_header_bombs(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(struct.pack("<Q", 2**40) + b'{"a":')
    assert format_of(path) is None
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", 90 * 2**20) + b"{")
        file.truncate(91 * 2**20)
    refused(path, "longer than")
    path.write_bytes(struct.pack("<Q", 200_000) + b"{" + b'"a":{' * 39_999 + b"    ")
    refused(path, "damaged")


def _twice_in_safetensors(path):
    entry = '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    content = f"{{{entry},{entry}}}".encode()
    path.write_bytes(struct.pack("<Q", len(content)) + content + b"\0" * 4)


def _twice_in_npz(path):
    values = io.BytesIO()
    numpy.save(values, numpy.ones(3, numpy.float32))
    with zipfile.ZipFile(path, "w") as archive:
        for _ in range(2):
            archive.writestr("a.npy", values.getvalue())


def _twice_in_torch(path):
    torch.save({"a": torch.ones(3)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        name = next(one for one in archive.namelist() if one.endswith("/data/0"))
        archive.writestr(name, b"\0" * 12)


def _twice_in_onnx(path):
    onnx = pytest.importorskip("onnx")
    tensors = [onnx.numpy_helper.from_array(numpy.full(3, value, numpy.float32), "a") for value in (1, 2)]
    path.write_bytes(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors)).SerializeToString())


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("write", [_twice_in_safetensors, _twice_in_npz, _twice_in_torch, _twice_in_onnx])
def test_a_name_that_stands_there_twice(tmp_path, write):
    write(tmp_path / "x")
    refused(tmp_path / "x", "the name '.*' stands there twice")


def test_a_folder_of_rubbish(tmp_path):
    random = numpy.random.default_rng(0)
    endings = ("", ".pt", ".safetensors", ".json", ".npz", ".onnx", ".nnet", ".zip", ".yml")
    for number, ending in enumerate(endings * 3):
        folder = tmp_path / "/".join("abc"[: number % 4])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}{ending}").write_bytes(random.bytes(int(random.integers(1, 3000))))
    (tmp_path / "circle").symlink_to(tmp_path)
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe")
    found = list(discover(tmp_path))
    # Whatever random bytes may pass for is a named error when it is read.
    for source in found:
        if source.format is not None:
            refused(source.path)
    assert len(found) >= 27 and {source.reason for source in found} >= {"of no format that is read"}


def test_numpy_that_lies(tmp_path):
    path = tmp_path / "x.npy"
    numpy.save(path, numpy.array([{"a": 1}], dtype=object), allow_pickle=True)
    refused(path, "only a pickle can hold")
    numpy.save(path, numpy.zeros(3))
    path.write_bytes(path.read_bytes().replace(b"(3,)", b"(9,)"))
    refused(path, "shape")
    numpy.save(path, numpy.zeros(3, dtype=numpy.complex64))
    refused(path, "complex64")
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", path.read_bytes() + b"\0" * 10**6)
    refused(tmp_path / "x.npz", "shape")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("2,2,1,3,", "3,2,1,3,"), ("2,3,1,", "2,999999999,1,"), ("2,3,1,", "2,0,1,"), ("0.4,\n", ""),
        ("0.4,", "0.4,0.5,"), ("7.0", "seven"), ("-1.0,-1.0,", "-1.0,"),
    ],
)  # fmt: skip
def test_nnet_that_lies(tmp_path, old, new):
    (tmp_path / "x.nnet").write_text(NNET.replace(old, new, 1))
    refused(tmp_path / "x.nnet", r"\.nnet text file is damaged")


@pytest.mark.parametrize("content", ['[[1, 2, "x"], 3]', "[[[1]], 3]", "[[], 3]", "[[1, 2]", "[" * 100_000])
def test_estool_that_lies(tmp_path, content):
    (tmp_path / "biped.json").write_text(content)
    refused(tmp_path / "biped.json")


def test_yaml_beside_a_file_constructs_nothing(tmp_path):
    path = EXAMPLES["legacy"](tmp_path)
    marker = tmp_path / "run"
    for content in (
        f"!!python/object/apply:os.mkdir ['{marker}']",
        "a: &a {x: 1}\nb: &b {<<: [*a, *a]}\n",
        "- 1",
        ": : :",
        "[" * 5000,
        "a: &a [" + "[" * 50 + "]" * 50 + "]\nb: *a",
    ):
        (tmp_path / "config.yml").write_text(content)
        (network,) = read(path)
        assert not network.checkpoint.card.hyperparameters and not marker.exists()


def test_nan_and_infinity_are_read_and_named(tmp_path):
    torch.save({"w": torch.tensor([float("nan"), 1.0]), "v": torch.ones(2), "best_loss": float("nan")}, tmp_path / "x")
    (network,) = read(tmp_path / "x")
    assert network.checkpoint.non_finite() == ["w"] and network.checkpoint.card.metrics == ()
