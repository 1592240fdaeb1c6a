"""Growth that keeps the function, and how long it takes to shrink a ResNet-50.

Growth: networks made wider and deeper by Net2Net, in float32, and the largest change of a logit on four random inputs.
ResNet-20 is the published one of `$WEIGHTGEN_DATA`; the others have random weights, and random norms, since those of a
fresh network would hide errors. Speed: read a checkpoint of timm's resnet50, halve every width, estimate its norms,
write it, in a process of its own, start and imports included. Writes results/resizing.json. Run it as
`scripts/benchmarks/resizing`; `--part growth` or `speed` runs one of them.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from weightgen.architecture import Architecture
from weightgen.checkpoint import Checkpoint
from weightgen.formats import read
from weightgen.morphing import morph
from weightgen.morphing.depths import logits

RESULT = Path(__file__).resolve().parent / "results/resizing.json"
NETWORKS = {
    "LeNet": "weightgen/cnn?channels=6,16&grid=4&input=1,28,28&kernel=5",
    "ResNet-20": "",
    "resnet18 (timm)": "timm/resnet18?num_classes=10",
    "vit_tiny (timm)": "timm/vit_tiny_patch16_224?num_classes=10",
    "Llama, 4 heads on 2 of keys": "transformers/LlamaForCausalLM?hidden_size=64&intermediate_size=96"
    "&num_attention_heads=4&num_hidden_layers=2&num_key_value_heads=2&vocab_size=99",
}  # fmt: skip
CHANGES: dict[str, dict[str, float]] = {
    "width × 1.5": {"width": 1.5},
    "width × 2": {"width": 2},
    "depth × 2": {"depth": 2},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["growth", "speed"], help="one of the parts")
    part = parser.parse_args().part
    result: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    if part != "speed":
        result["growth"] = growth()
    if part != "growth":
        result["speed"] = speed()
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def growth() -> list[dict[str, Any]]:
    """The change of the output of every network for every growth."""
    rows = []
    for name, recipe in NETWORKS.items():
        network = checkpoint(recipe)
        for change, size in CHANGES.items():
            made = morph(network, width=size.get("width"), depth=size.get("depth"))
            difference, largest = compare(network, made.checkpoint)
            rows.append({
                "network": name, "change": change, "parameters": [network.parameters, made.checkpoint.parameters],
                "largest_change_of_a_logit": difference, "largest_logit": largest, "notes": list(made.notes),
            })  # fmt: skip
            print(name, change, f"{difference:.1e}", made.notes, flush=True)
    return rows


def speed() -> dict[str, Any]:
    """Seconds from a file to a file."""
    found: dict[str, Any] = {"threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "resnet50.safetensors"
        checkpoint("timm/resnet50").save(file)
        for method in ("select", "prune"):
            start, before = time.time(), processor_seconds()
            command = ["-m", "weightgen", "morph", str(file), "--width", "0.5", "--method", method, "--force"]
            subprocess.run([sys.executable, *command, "--out", f"{folder}/half.safetensors"], check=True)
            found[f"resnet50 halved by {method}"] = {
                "seconds": round(time.time() - start, 1), "processor_seconds": round(processor_seconds() - before, 1)
            }  # fmt: skip
            print(method, found[f"resnet50 halved by {method}"], flush=True)
    return found


def processor_seconds() -> float:
    """Of all ended processes: on a machine that does other work as well, what theirs would take at least alone."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def checkpoint(recipe: str) -> Checkpoint:
    """A network of a recipe with random weights and norms, or the published ResNet-20."""
    if not recipe:
        return read(Path(os.environ["WEIGHTGEN_DATA"]) / "resnet_cifar10/resnet20-12fca82f.th")[0].checkpoint
    torch.manual_seed(0)
    module = Architecture.parse(recipe).build()
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point() and tensor.dim() == 1:
                tensor.uniform_(0.6, 1.4) if name.endswith(("weight", "running_var")) else tensor.uniform_(-0.4, 0.4)
    return Checkpoint(Architecture.parse(recipe), module.state_dict())


@torch.no_grad()
def compare(before: Checkpoint, after: Checkpoint) -> tuple[float, float]:
    """The largest change of a logit, and the largest logit."""
    torch.manual_seed(1)
    inputs = [
        torch.randn(4, *example.shape[1:])
        if example.is_floating_point()
        else torch.randint(0, 99, (4, *example.shape[1:]))
        for example in before.architecture.example_inputs()
    ]
    old, new = logits(before.build()(*inputs)), logits(after.build()(*inputs))
    return (old - new).abs().max().item(), old.abs().max().item()


if __name__ == "__main__":
    main()
