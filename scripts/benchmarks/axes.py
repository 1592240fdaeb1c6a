"""Axis groups of many architectures: how much of each they cover, and whether they are right.

For each network all groups are permuted at random, one after the other, and the output is compared with the one before:
the largest difference over the output's largest value, in float32 and in float64. Weights, norms and statistics are
random, so that nothing hides an error; ResNet-20 has its trained weights if $WEIGHTGEN_DATA is set. Seconds are those
of `trace_axes`, `torch.export` included, the fastest of three runs: by the clock, and of the processor, which other
work on the machine disturbs less. Writes results/axes.json.
Run it as `scripts/benchmarks/axes`, or with names of networks for those alone, which writes nothing.
"""

import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tested import tested

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "scripts/benchmarks/results/axes.json"
REPEATS = 3

networks = tested("structure/networks.py")
Build = Callable[[], Any]


def _timm(name: str) -> Build:
    def build() -> Any:
        import timm

        module = timm.create_model(name)
        return networks.Example(module, (torch.randn(1, *module.default_cfg["input_size"]),))

    return build


def _vision(name: str) -> Build:
    def build() -> Any:
        import torchvision

        return networks.Example(getattr(torchvision.models, name)(), (torch.randn(1, 3, 224, 224),))

    return build


def _resnet20() -> Any:
    module = networks.ResNetA()
    path = Path(os.environ.get("WEIGHTGEN_DATA", "")) / "resnet_cifar10/resnet20-12fca82f.th"
    if path.is_file():
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        module.load_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()})
        module.trained = True
    return networks.Example(module, (torch.randn(1, 3, 32, 32),))


def _bert_base() -> Any:
    from transformers import BertConfig, BertForMaskedLM

    return networks.Example(BertForMaskedLM(BertConfig()), (), {"input_ids": torch.randint(1, 30000, (1, 16))})


def _gpt2_small() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return networks.Example(
        GPT2LMHeadModel(GPT2Config(use_cache=False)), (), {"input_ids": torch.randint(1, 50000, (1, 16))}
    )


def _stable_diffusion_autoencoder() -> Any:
    from diffusers import AutoencoderKL

    module = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    return networks.Example(module, (torch.randn(1, 3, 64, 64),), {"return_dict": False})


def _small(name: str) -> Build:
    return networks.NETWORKS[name]


NETWORKS: dict[str, Build] = {
    "weightgen/mlp?hidden=8,6": _small("mlp"),
    "weightgen/cnn?channels=4,6": _small("cnn"),
    "LeNet": _small("lenet"),
    "ResNet-20, option A": _resnet20,
    "LSTM and GRU (small)": _small("recurrent"),
    "glu, grouped, transposed, pixel shuffle (small)": _small("mixed"),
    "timm/resnet18": _timm("resnet18"),
    "timm/resnet50": _timm("resnet50"),
    "timm/resnext50_32x4d": _timm("resnext50_32x4d"),
    "timm/densenet121": _timm("densenet121"),
    "timm/mobilenetv3_large_100": _timm("mobilenetv3_large_100"),
    "timm/efficientnet_b0": _timm("efficientnet_b0"),
    "timm/convnext_tiny": _timm("convnext_tiny"),
    "timm/vit_tiny_patch16_224": _timm("vit_tiny_patch16_224"),
    "timm/deit_tiny_distilled_patch16_224": _timm("deit_tiny_distilled_patch16_224"),
    "timm/swin_tiny_patch4_window7_224": _timm("swin_tiny_patch4_window7_224"),
    "timm/mixer_s32_224": _timm("mixer_s32_224"),
    "torchvision/resnet18": _vision("resnet18"),
    "torchvision/shufflenet_v2_x0_5": _vision("shufflenet_v2_x0_5"),
    "torchvision/vit_b_32": _vision("vit_b_32"),
    "transformers/BertForMaskedLM (base)": _bert_base,
    "transformers/GPT2LMHeadModel (small)": _gpt2_small,
    "transformers/LlamaForCausalLM, grouped keys (tiny)": _small("llama"),
    "transformers/T5ForConditionalGeneration (tiny)": _small("t5"),
    "transformers/WhisperForConditionalGeneration (tiny)": _small("whisper"),
    "diffusers/UNet2DModel (tiny)": _small("unet"),
    "diffusers/UNet2DConditionModel (tiny)": _small("conditional_unet"),
    "diffusers/AutoencoderKL (of Stable Diffusion)": _stable_diffusion_autoencoder,
    "diffusers/AutoencoderTiny (tiny)": _small("autoencoder_tiny"),
    "diffusers/DiTTransformer2DModel (tiny)": _small("dit"),
}


def measure(build: Build) -> dict[str, Any]:
    from weightgen.structure.tracing import trace_axes

    torch.manual_seed(0)
    example = build()
    seconds, processor = [], []
    for _ in range(REPEATS):
        begin, worked = time.perf_counter(), time.process_time()
        graph = trace_axes(example.module, example.arguments, example.keywords, example.output)
        seconds.append(time.perf_counter() - begin)
        processor.append(time.process_time() - worked)
    if not getattr(example.module, "trained", False):
        networks.randomise(example.module)
    changed = networks.all_permuted(example, graph)
    return {
        "parameters": sum(parameter.numel() for parameter in example.module.parameters()),
        "share_in_groups": round(networks.share_in_groups(example, graph), 4),
        "groups": len(graph.groups),
        "frozen_axes": len(graph.frozen),
        "change_float32": float(f"{networks.change(example, changed, torch.float32):.1e}"),
        "change_float64": float(f"{networks.change(example, changed, torch.float64):.1e}"),
        "seconds": round(min(seconds), 2),
        "processor_seconds": round(min(processor), 2),
    }


def main() -> None:
    warnings.simplefilter("ignore")
    chosen = sys.argv[1:] or list(NETWORKS)
    # The first export loads the compiler.
    measure(NETWORKS["LeNet"])
    rows = {}
    print("name, parameters, share in groups, groups, frozen axes, change in float32, in float64, seconds, processor's")
    for name in chosen:
        rows[name] = measure(NETWORKS[name])
        print(f"{name:52}" + "".join(f"{value:>12}" for value in rows[name].values()), flush=True)
    if not sys.argv[1:]:
        machine = {"processor": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__}
        result = {"command": "scripts/benchmarks/axes", "machine": machine, "networks": rows}
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
