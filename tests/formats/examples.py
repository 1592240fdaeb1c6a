"""One small source of every format, written by the libraries that other people use."""

import io
import json
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy
import torch
from safetensors.torch import save_file
from torch import nn

from weightgen.architecture import Architecture
from weightgen.checkpoint import Card, Checkpoint


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    shapes = {"one.weight": (3, 2), "one.bias": (3,), "two.weight": (2, 3)}
    return {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}


def own(folder: Path) -> Path:
    architecture = Architecture.parse("weightgen/mlp?hidden=2")
    random = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(shape, generator=random) for name, shape in architecture.parameter_shapes().items()}
    path = folder / "own.safetensors"
    Checkpoint(architecture, weights, Card("digits", tags=("ours",))).save(path)
    return path


def safetensors(folder: Path) -> Path:
    path = folder / "foreign.safetensors"
    save_file(tensors(), path, metadata={"format": "pt", "author": "somebody"})
    return path


def sharded(folder: Path) -> Path:
    values = tensors()
    weight_map = {name: f"model-{name[:3]}.safetensors" for name in values}
    for shard in set(weight_map.values()):
        save_file({name: values[name] for name in values if weight_map[name] == shard}, folder / shard)
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 60}, "weight_map": weight_map}))
    return path


def torch_zip(folder: Path) -> Path:
    path = folder / "zip.pt"
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(2))])
    state = OrderedDict((f"module.{name}", one) for name, one in tensors().items())
    torch.save({"epoch": 3, "best_acc": 0.5, "model": state, "optimizer": optimizer.state_dict()}, path)
    return path


def torch_legacy(folder: Path) -> Path:
    path = folder / "legacy.th"
    torch.save({"state_dict": tensors(), "loss": torch.tensor(0.25)}, path, _use_new_zipfile_serialization=False)
    return path


def stable_baselines(folder: Path) -> Path:
    inner = folder / "a2c" / "Pole-v1_1"
    (inner / "Pole-v1").mkdir(parents=True)
    content = io.BytesIO()
    torch.save(tensors(), content)
    with zipfile.ZipFile(inner / "Pole-v1.zip", "w") as archive:
        archive.writestr("data", '{"policy": {":serialized:": "gASV"}}')
        archive.writestr("policy.pth", content.getvalue())
    (inner / "Pole-v1" / "config.yml").write_text(
        "!!python/object/apply:collections.OrderedDict\n- - - gamma\n    - 0.99\n  - - learning_rate\n    - lin_7e-4\n"
    )
    returns = numpy.array([[1.0, 3.0], [9.0, 11.0], [5.0, 5.0]])
    numpy.savez(inner / "evaluations.npz", timesteps=[10, 20, 30], results=returns, ep_lengths=returns)
    return inner / "Pole-v1.zip"


def huggingface(folder: Path) -> Path:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=20,
        max_position_embeddings=8,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder / "bert")
    return folder / "bert"


def timm(folder: Path) -> Path:
    import timm as library

    module = library.create_model("test_resnet", num_classes=5)
    (folder / "timm").mkdir()
    save_file(module.state_dict(), folder / "timm" / "model.safetensors")
    (folder / "timm" / "config.json").write_text(json.dumps({"architecture": "test_resnet", "num_classes": 5}))
    return folder / "timm"


def peft(folder: Path) -> Path:
    (folder / "adapter").mkdir()
    save_file(tensors(), folder / "adapter" / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "base_model_name_or_path": "somebody/base", "r": 4, "target_modules": ["q", "v"]}
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    return folder / "adapter"


def npz(folder: Path) -> Path:
    path = folder / "arrays.npz"
    numpy.savez(path, **{name: one.numpy() for name, one in tensors().items()}, accuracy=0.75, author="somebody")
    return path


def npz_packed(folder: Path) -> Path:
    path = folder / "packed.npz"
    numpy.savez_compressed(path, **{name: one.numpy() for name, one in tensors().items()})
    return path


def npy(folder: Path) -> Path:
    path = folder / "array.npy"
    numpy.save(path, numpy.asfortranarray(tensors()["one.weight"].numpy()))
    return path


NNET = """// a comment
2,2,1,3,
2,3,1,
0,
-1.0,-1.0,
1.0,1.0,
0.0,0.0,0.0,
1.0,1.0,1.0,
1.0,2.0,
3.0,4.0,
5.0,6.0,
0.1,
0.2,
0.3,
7.0,8.0,9.0,
0.4,
"""


def nnet(folder: Path) -> Path:
    path = folder / "ACASXU_run2a_3_5_batch_2000.nnet"
    path.write_text(NNET)
    return path


def estool(folder: Path) -> Path:
    path = folder / "biped.cma.json"
    values = numpy.random.default_rng(0).normal(size=2804).round(4).tolist()
    path.write_text(json.dumps([values, 123.5]))
    return path


def onnx(folder: Path) -> Path:
    from onnx import TensorProto, helper, numpy_helper, save

    initialisers = [numpy_helper.from_array(one.numpy(), name) for name, one in tensors().items()]
    node = helper.make_node("MatMul", ["x", "two.weight"], ["y"])
    given, made = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y"))
    model = helper.make_model(helper.make_graph([node], "small", [given], [made], initialisers), producer_name="nobody")
    save(model, folder / "model.onnx")
    return folder / "model.onnx"


EXAMPLES: dict[str, Callable[[Path], Path]] = {
    "safetensors": safetensors, "own": own, "sharded": sharded, "torch": torch_zip, "legacy": torch_legacy,
    "stable-baselines3": stable_baselines, "huggingface": huggingface, "timm": timm, "peft": peft, "npz": npz,
    "packed": npz_packed, "npy": npy, "nnet": nnet, "estool": estool, "onnx": onnx,
}  # fmt: skip
"""Name → a function that writes the source into a folder and gives its path."""
