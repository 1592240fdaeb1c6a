"""Steps a second with a condition for each example, against hyperlight, and the memory of a ResNet-18 hypernetwork.

Writes results/hypernetwork_speed.json. Run it as `scripts/benchmarks/hypernetwork-speed`.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from peer import Peer
from rotated import primary
from torch import Tensor, nn

from weightgen.generators.conditions import Scalar
from weightgen.generators.hypernetwork import hypernetwork

FOLDER = Path(__file__).resolve().parent / "results"
SIZES = (64, 256)
MEGABYTE = 2**20


def seconds_a_step(module: nn.Module, forward: Callable[[], Tensor], repeats: int) -> float:
    """Median processor time of a step of Adam."""
    optimiser = torch.optim.Adam(module.parameters(), 1e-3, fused=True)
    found = []
    for _ in range(repeats + 2):
        begin = time.process_time()
        optimiser.zero_grad()
        forward().backward()
        optimiser.step()
        found.append(time.process_time() - begin)
    return statistics.median(found[2:])


def speed(batch: int, repeats: int) -> dict[str, float]:
    """Steps a second of both, a condition for each of `batch` images."""
    torch.manual_seed(0)
    images, labels, z = torch.randn(batch, 1, 28, 28), torch.randint(10, (batch,)), torch.rand(batch, 1)
    found: dict[str, float] = {"batch": batch}
    for name, module in (("weightgen", hypernetwork(primary(), 1)), ("hyperlight", Peer(primary()))):

        def forward(module=module) -> Tensor:
            return nn.functional.cross_entropy(module.forward_at(z, images), labels)

        found[name] = round(1 / seconds_a_step(module, forward, repeats), 3)
    return found | {"ratio": round(found["weightgen"] / found["hyperlight"], 2)}


def memory(batch: int, side: int) -> dict[str, float]:
    """Megabytes of a forward and backward step of a ResNet-18 hypernetwork; to be called in a fresh process."""
    hyper = hypernetwork("timm/resnet18", Scalar(0, 180), rank=8)
    network, images = hyper.network, torch.randn(batch, 3, side, side)
    parameters = sum(one.numel() * one.element_size() for one in network.parameters())
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    # What a step of the network alone keeps for its backward pass, its parameters left out.
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        answer = network(images)
    for one in network.parameters():
        kept.pop(one.untyped_storage().data_ptr(), None)
    activations = sum(kept.values())
    del answer
    # What is held already counts as part of the step: the hypernetwork itself.
    held = sum(one.numel() * one.element_size() for one in hyper.parameters())
    before = _resident()
    hyper(30.0, images).square().mean().backward()
    peak = held + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return {
        "batch": batch,
        "side": side,
        "hypernetwork_parameters": sum(one.numel() for one in hyper.parameters()),
        "network_parameters_mb": round(parameters / MEGABYTE, 1),
        "activations_mb": round(activations / MEGABYTE, 1),
        "peak_mb": round(peak / MEGABYTE, 1),
        "ratio": round(peak / (parameters + activations), 2),
    }


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument(
        "--memory", type=int, nargs=2, metavar=("BATCH", "SIDE"), help="measure only this, and print it"
    )
    options = parser.parse_args()
    if options.memory:
        print(json.dumps(memory(*options.memory)))
        return
    result = {
        "command": "scripts/benchmarks/hypernetwork-speed",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "steps_a_second": [speed(batch, options.repeats) for batch in SIZES],
        "resnet18": [],
    }
    for batch, side in ((2, 64), (8, 224)):
        command = [sys.executable, __file__, "--memory", str(batch), str(side)]
        result["resnet18"].append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    (options.out / "hypernetwork_speed.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
