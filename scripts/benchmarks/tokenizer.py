"""How many bits a weight takes, and what accuracy that costs: the general tokenizer beside plain quantisation.

    scripts/benchmarks/tokenizer --part grid     sizes, on validation images and validation runs
    scripts/benchmarks/tokenizer --part test     the shipped tokenizer, on test images, with its baselines
    scripts/benchmarks/tokenizer --part plot     the picture

Networks: ResNet-20 of `$WEIGHTGEN_DATA/resnet_cifar10`, which no tokenizer here learned from (it learns from ResNet-32
and the training runs of the starter zoo), and the held-out runs of the starter zoo. Baselines keep vectors, scales
and the smallest weights as the tokenizer does, so that only the weights' codes differ: rounding to even steps within
each row's range, and the levels of k-means on single values. Norms are moved by what the codes change of their
statistics on training images. Writes results/tokenizer.json and tokenizer.png.
"""

import argparse
import copy
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from weightgen.checkpoint import Checkpoint
from weightgen.formats.opening import open_network
from weightgen.generators.tokenizer_recipes import sources_of
from weightgen.tasks import get_task
from weightgen.tasks.evaluation import predictions
from weightgen.tokenizers import GeneralConfig, GeneralTokenizer, QuantiserConfig
from weightgen.tokenizers.fitting import Fitting, fit_general
from weightgen.tokenizers.general import Plan
from weightgen.tokenizers.quantiser import health
from weightgen.training.population import population_predictions
from weightgen.training.recalibration import recalibrate
from weightgen.zoo import Zoo
from weightgen.zoo.cells import zoo_cells

FOLDER = Path(__file__).resolve().parent / "results"
RESULT, PICTURE = FOLDER / "tokenizer.json", FOLDER / "tokenizer.png"
DATA = Path(os.environ.get("WEIGHTGEN_DATA", "")) / "resnet_cifar10"
LEARNED, HELD_OUT = DATA / "resnet32-d509ac18.th", DATA / "resnet20-12fca82f.th"
GRID = (
    QuantiserConfig("residual", 4, 2, 128), QuantiserConfig("scalar", 4, 1, 13),
    QuantiserConfig("residual", 8, 3, 812), QuantiserConfig("grouped", 8, 1, 128, groups=4),
    QuantiserConfig("residual", 8, 4, 128), QuantiserConfig("residual", 16, 8, 128),
    QuantiserConfig("residual", 32, 16, 128),
)  # fmt: skip
QUICK = Fitting(pool=32_768, of_tensor=2_048, steps=10, batch=4_096, first=8_192, refinements=1)
CHOICE_IMAGES, RECALIBRATION_IMAGES, RUNS = 1_000, 1_000, 10
BASELINE_BITS = (3, 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("grid", "test", "plot"), required=True)
    torch.set_num_threads(1)
    part = parser.parse_args().part
    if part == "plot":
        return plot(json.loads(RESULT.read_text()))
    rows = []
    for row in grid() if part == "grid" else test():
        rows.append(row)
        print(json.dumps(row), flush=True)
        result = json.loads(RESULT.read_text()) if RESULT.exists() else {"command": "scripts/benchmarks/tokenizer"}
        RESULT.write_text(json.dumps(result | {part: rows}, indent=1) + "\n")


def grid() -> Iterator[dict[str, Any]]:
    """Every tokenizer of the grid, fitted quickly, on validation images and validation runs."""
    sources = [source for place in ("starter", str(LEARNED)) for source in sources_of(place, "train")]
    runs = [source.open() for source in sources_of("starter", "validation")][:: 50 // RUNS]
    bench = Bench("validation", CHOICE_IMAGES)
    yield bench.row("as it is", copy.deepcopy(bench.original), 32.0, None)
    for config in GRID:
        tokenizer = fit_general(sources, GeneralConfig(config), QUICK)
        figures = [tokenizer.measure(run, tokenizer.encode(run)) for run in runs]
        row = bench.of(tokenizer, f"{config.kind} {config.columns} × {config.codebook} for {config.chunk}")
        yield row | {
            "starter_bits": mean(figures, "bits_per_weight"), "starter_snr_db": mean(figures, "snr_db")
        }  # fmt: skip


def test() -> Iterator[dict[str, Any]]:
    """The shipped tokenizer and its baselines on test images."""
    tokenizer = GeneralTokenizer.from_pretrained("general")
    yield from starter(tokenizer)
    bench = Bench("test", None)
    yield bench.row("as it is", copy.deepcopy(bench.original), 32.0, None)
    yield bench.of(tokenizer, "general tokenizer") | {
        "health": health(tokenizer.encode(bench.network).codes, tokenizer.config.quantiser.entries)
    }
    for bits in BASELINE_BITS:
        yield bench.baseline(tokenizer, f"rounding, {bits} bits", bits, rounded)
        yield bench.baseline(tokenizer, f"k-means of single values, {bits} bits", bits, clustered)


def starter(tokenizer: GeneralTokenizer) -> Iterator[dict[str, Any]]:
    """The held-out runs of the starter zoo, each cell on its own test images."""
    for cell in zoo_cells(Zoo.open("starter"), "split = 'test'"):
        images, labels = get_task(cell.task).test()
        images, labels = images[:2_000], labels[:2_000]
        decoded, figures = [], []
        for number in range(len(cell.ids)):
            network = Checkpoint(cell.architecture, {name: tensor[number] for name, tensor in cell.tensors.items()})
            tokens = tokenizer.encode(network)
            decoded.append(tokenizer.decode(tokens))
            figures.append(tokenizer.measure(network, tokens))
        stacked = {name: torch.stack([one[name] for one in decoded]) for name in decoded[0]}
        before, after = (
            (population_predictions(cell.architecture, tensors, images) == labels).double().mean().item()
            for tensors in (dict(cell.tensors), stacked)
        )
        yield {
            "method": "general tokenizer", "network": f"starter, {cell.task}, {cell.architecture}",
            "networks": len(cell.ids), "before": before, "accuracy": after,
            "bits_per_weight": mean(figures, "bits_per_weight"), "snr_db": mean(figures, "snr_db"),
        }  # fmt: skip


class Bench:
    """ResNet-20, and images to measure it on."""

    def __init__(self, split: str, images: int | None) -> None:
        task = get_task("cifar10")
        self.images, self.labels = (part[:images] for part in task.split(split))
        self.training = task.train()[0][:RECALIBRATION_IMAGES]
        self.network = open_network(HELD_OUT)
        self.original, self.split = self.network.build(), split

    def row(self, method: str, module: nn.Module, bits: float, decibels: float | None) -> dict[str, Any]:
        decoded = self.accuracy(module)
        recalibrate(module, self.training, original=self.original)
        return {
            "method": method, "network": "ResNet-20, CIFAR-10 (JPEG)", "split": self.split, "bits_per_weight": bits,
            "snr_db": decibels, "decoded": decoded, "accuracy": self.accuracy(module) if decibels else decoded,
        }  # fmt: skip

    def accuracy(self, module: nn.Module) -> float:
        return (predictions(module.eval(), self.images) == self.labels).double().mean().item()

    def of(self, tokenizer: GeneralTokenizer, method: str) -> dict[str, Any]:
        tokens = tokenizer.encode(self.network)
        figures = tokenizer.measure(self.network, tokens)
        module = Checkpoint(self.network.architecture, tokenizer.decode(tokens)).build()
        return self.row(method, module, figures["bits_per_weight"], figures["snr_db"]) | {
            "snr_db_by_kind": figures["snr_db_by_kind"]
        }

    def baseline(
        self, tokenizer: GeneralTokenizer, method: str, bits: int, quantise: Callable[[Tensor, int], Tensor]
    ) -> dict[str, Any]:
        """Weights by a plain quantiser at so many bits a value, all else as the tokenizer keeps it."""
        tokens = tokenizer.encode(self.network)
        plan = Plan.of(tokens.shapes, tokenizer.config.quantiser.chunk)
        kept = tokenizer.bits(replace(tokens, codes=tokens.codes[:0]))
        tensors, signal, lost, values = tokenizer.decode(tokens), 0.0, 0.0, 0
        for name in plan.layout.shapes:
            original = self.network.tensor(name)
            rows = original.flatten(1)
            tensors[name] = quantise(rows, bits).view_as(original)
            power = original.square().mean()
            lost += ((tensors[name] - original).square().sum() / power).item()
            signal += original.numel()
            values += original.numel()
        module = Checkpoint(self.network.architecture, tensors).build()
        each = (kept + bits * values) / self.network.parameters
        decibels = 10 * torch.tensor(signal / lost).log10().item()
        return self.row(method, module, round(each, 4), round(decibels, 2))


def rounded(rows: Tensor, bits: int) -> Tensor:
    """To the nearest of even steps between the ends of each row's range, around zero."""
    most = 2 ** (bits - 1) - 0.5
    step = rows.abs().amax(1, keepdim=True) / most
    return ((rows / step - 0.5).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) + 0.5) * step


def clustered(rows: Tensor, bits: int) -> Tensor:
    """To the levels of k-means on the tensor's values in units of their rows, which begin at even quantiles."""
    size = rows.square().mean(1, keepdim=True).sqrt().clamp_min(1e-12)
    values = (rows / size).flatten()
    levels = values.quantile((torch.arange(2**bits) + 0.5) / 2**bits)
    for _ in range(20):
        nearest = torch.bucketize(values, (levels[1:] + levels[:-1]) / 2)
        count = torch.bincount(nearest, minlength=len(levels))
        total = torch.zeros_like(levels).index_add_(0, nearest, values)
        levels = torch.where(count > 0, total / count.clamp_min(1), levels).sort().values
    return levels[torch.bucketize(values, (levels[1:] + levels[:-1]) / 2)].view_as(rows) * size


def mean(figures: list[dict[str, Any]], name: str) -> float:
    return round(sum(one[name] for one in figures) / len(figures), 4)


def plot(result: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 5), constrained_layout=True)
    for axis, part in zip(axes, ("grid", "test"), strict=True):
        rows = [row for row in result[part] if row["network"].startswith("ResNet-20")]
        base = next(row for row in rows if row["snr_db"] is None)
        axis.axhline(100 * base["accuracy"], color="gray", linestyle="--", label="as it is")
        axis.axvline(4, color="lightgray", linewidth=1)
        for row in rows:
            if row["snr_db"] is not None:
                axis.scatter(row["bits_per_weight"], 100 * row["accuracy"], label=row["method"])
        axis.set_xlabel("bits a weight, everything counted")
        axis.set_ylabel(f"accuracy on {base['split']} images, %")
        axis.legend(fontsize=7, ncol=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    axes[0].set_title("choice: 1,000 validation images, quick fits", fontsize=10)
    axes[1].set_title("the shipped tokenizer and its baselines: test images", fontsize=10)
    figure.suptitle("ResNet-20, which no tokenizer learned from")
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
