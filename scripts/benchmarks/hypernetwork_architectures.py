"""Whether published architectures wrap, run forward and backward, and compile, with nothing said about them.

Each becomes a hypernetwork of rank 2. Measured are: that one condition and a grid of them answer as the plain network
with the same weights does; that a step backward reaches every parameter; and that `torch.compile(fullgraph=True)` gives
the same answers and gradients. The backend is aot_eager, which traces forward and backward as inductor does and leaves
out the C++ compiler. Writes results/hypernetwork_architectures.json after every architecture and goes on where it was
stopped. Run it as `scripts/benchmarks/hypernetwork-architectures`.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

from weightgen.generators.conditions import Scalar
from weightgen.generators.hypernetwork import Hypernetwork, hypernetwork
from weightgen.storage import write_text

FOLDER = Path(__file__).resolve().parent / "results"
ARCHITECTURES = {
    "torchvision/squeezenet1_1": 64,
    "timm/resnet18": 64,
    "timm/vit_tiny_patch16_224": 224,
    "timm/mobilenetv3_small_050": 64,
    "timm/convnext_atto": 64,
    "torchvision/shufflenet_v2_x0_5": 64,
    "timm/regnetx_002": 64,
    "timm/resnet26d": 64,
    "timm/mixer_s32_224": 224,
    "timm/efficientnet_b0": 64,
    "torchvision/vgg11_bn": 64,
    "timm/swin_tiny_patch4_window7_224": 224,
    "torchvision/densenet121": 64,
}
"""Library and name → side of the images."""


def build(name: str) -> nn.Module:
    library, _, model = name.partition("/")
    if library == "timm":
        return timm.create_model(model, num_classes=10)
    return torchvision.models.get_model(model, num_classes=10)


def made(name: str) -> Hypernetwork:
    """A hypernetwork as training leaves it: every parameter of its head moved."""
    torch.manual_seed(0)
    hyper = hypernetwork(build(name), Scalar(0, 180), hidden=(8, 8), rank=2)
    with torch.no_grad():
        for parameter in hyper.head.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return hyper


def gradients(hyper: Hypernetwork, answer: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(answer.square().mean(), list(hyper.parameters()), allow_unused=True))


def difference(one: Tensor, other: Tensor) -> float:
    """The greatest difference as a share of the greatest value."""
    return ((one - other).abs().max() / other.abs().max().clamp(min=1e-30)).item()


def measure(name: str, side: int) -> dict[str, Any]:
    hyper, images = made(name), torch.randn(2, 3, side, side)
    reached = gradients(hyper, hyper(45.0, images))  # in training mode, with batch statistics
    hyper.eval()
    alone = hyper(45.0, images)
    with torch.no_grad():
        plain = build(name).eval()
        plain.load_state_dict({**hyper.network.state_dict(), **hyper.tensors(45.0)})
        network = plain(images)
        grid = hyper([45.0, 135.0], images, grid=True)
        far = difference(grid[1], grid[0])
    wanted = gradients(hyper, alone)
    begin = time.perf_counter()
    compiled = torch.compile(hyper, backend="aot_eager", fullgraph=True)
    angle = torch.tensor(45.0)
    answer = compiled(angle, images)
    given = gradients(hyper, answer)
    seconds = time.perf_counter() - begin
    return {
        "architecture": name,
        "parameters": sum(one.numel() for one in hyper.network.parameters()),
        "hypernetwork_parameters": sum(one.numel() for one in hyper.parameters()),
        "parameters_without_a_finite_gradient": sum(one is None or not bool(one.isfinite().all()) for one in reached),
        "plain_difference": difference(alone, network),
        "grid_difference": difference(grid[0], alone),
        "condition_difference": far,
        "compiled_difference": difference(answer, alone),
        "compiled_gradient_difference": max(
            difference(one, other)
            for one, other in zip(given, wanted, strict=True)
            if one is not None and other is not None and bool(other.any())
        ),
        "compile_seconds": round(seconds, 1),
    }


def passes(row: dict[str, Any]) -> bool:
    """Whether all answers agree to 1e-3, the condition matters, and every parameter is reached."""
    agree = max(
        row[name]
        for name in ("plain_difference", "grid_difference", "compiled_difference", "compiled_gradient_difference")
    )
    return agree < 1e-3 and row["condition_difference"] > 1e-3 and row["parameters_without_a_finite_gradient"] == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="one name, measured anew and printed, not written")
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.only:
        print(json.dumps(measure(options.only, ARCHITECTURES[options.only]), indent=1))
        return
    path = options.out / "hypernetwork_architectures.json"
    result: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"rows": []}
    result |= {"command": "scripts/benchmarks/hypernetwork-architectures", "torch": torch.__version__}
    done = {row["architecture"] for row in result["rows"]}
    for name, side in ARCHITECTURES.items():
        if name in done:
            continue
        row = measure(name, side)
        result["rows"].append(row | {"passes": passes(row)})
        result["passed"] = sum(row["passes"] for row in result["rows"])
        write_text(path, json.dumps(result, indent=1) + "\n")
        print(json.dumps(result["rows"][-1]), file=sys.stderr, flush=True)
        torch._dynamo.reset()
    print(f"{result['passed']} of {len(result['rows'])} wrap, run forward and backward, and compile")


if __name__ == "__main__":
    main()
