"""A ResNet-20 for CIFAR-10 in other sizes: the inner width of its last block (T1), and all its widths (T2).

The network is the published one of `$WEIGHTGEN_DATA/resnet_cifar10`, the images are JPEG: it has 81.0 % on their test
split, and 91.7 % on that of the originals. What a method draws or chooses it does on training images; every row is
measured on the test split once. Writes results/morph.json after every row, goes on where it was stopped, and draws
results/morph.png. Run it as `scripts/benchmarks/morph`; `--part T1` or `T2` runs one table, `--plot-only` draws and
prints the committed results. A new method is one more entry of `ROWS`.
"""

import argparse
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from weightgen.checkpoint import Checkpoint
from weightgen.formats import read
from weightgen.morphing import morph
from weightgen.storage import atomic
from weightgen.tasks import Task, get_task
from weightgen.tasks.evaluation import predictions

FOLDER = Path(__file__).resolve().parent / "results"
NETWORK = "resnet_cifar10/resnet20-12fca82f.th"
LAST = "layer3.2"
WIDTHS: dict[str, tuple[float, ...]] = {"T1": (0.75, 0.5, 0.25), "T2": (0.875, 0.75, 0.625, 0.5, 0.37, 0.25)}
STEPS = 350
"""Training steps of batch 128 of one fine-tuned network: an epoch. A generator for n sizes may take n times as many."""


@dataclass
class Data:
    """The network, its task, and what is computed once."""

    network: Checkpoint
    task: Task

    @cached_property
    def features(self) -> Tensor:
        """What the last block reads of every test image, which no change of the block itself changes."""
        module = self.network.build()
        found: list[Tensor] = []
        handle = module.get_submodule(LAST).register_forward_pre_hook(lambda _, given: found.append(given[0]))
        with torch.no_grad():
            predictions(module, self.task.test()[0])
        handle.remove()
        return torch.cat(found)

    def accuracy(self, checkpoint: Checkpoint) -> float:
        """On the test split; from what the last block reads, where nothing before it is changed."""
        images, labels = self.task.test()
        module = checkpoint.build()
        before = self.network.state_dict()
        changed = [
            name for name, tensor in checkpoint.state_dict().items()
            if not name.startswith((LAST, "linear")) and not torch.equal(tensor, before[name])
        ] if set(before) == set(checkpoint.shapes) and all(
            checkpoint.shapes[name] == self.network.shapes[name] for name in before if not name.startswith(LAST)
        ) else ["all"]  # fmt: skip
        if not changed:
            block, head = module.get_submodule(LAST), module.get_submodule("linear")
            module, images = _Rest(block, head), self.features
        return (predictions(module, images) == labels).double().mean().item()


class _Rest(nn.Module):
    """The last block and the classifier."""

    def __init__(self, block: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.block, self.head = block, head

    def forward(self, features: Tensor) -> Tensor:
        """Features `[n, channels, height, width]` to logits."""
        return self.head(self.block(features).mean((2, 3)))


Row = Callable[[Data, str, float, int], tuple[Checkpoint, dict[str, Any]]]
"""(data, table, width, seed) → the network of that size, and what is worth knowing: `examples_seen` in training."""


def morphed(
    data: Data, table: str, width: float, seed: int, *, method: str, recalibrate: str = "data", repair: bool = False,
    steps: int = 0, rate: float = 1e-3,
) -> tuple[Checkpoint, dict[str, Any]]:  # fmt: skip
    """A row that is one call of `morph`."""
    wanted = {f"{LAST}.conv1": width} if table == "T1" else width
    made = morph(
        data.network, width=wanted, method=method, task=data.task, recalibrate=recalibrate, repair=repair,
        finetune_steps=steps, distil=True, learning_rate=rate, measure=False, seed=seed,
    )  # fmt: skip
    return made.checkpoint, {"examples_seen": 128 * steps}


@dataclass(frozen=True)
class Entry:
    """A row of the tables.

    Args:
        make: gives its networks.
        seeds: how many; one where nothing is drawn but the images that norms look at.
    """

    make: Row
    seeds: int = 1


ROWS: dict[str, Entry] = {
    "select + recalibrated": Entry(partial(morphed, method="select")),
    "L1 + recalibrated": Entry(partial(morphed, method="l1")),
    "Taylor + recalibrated": Entry(partial(morphed, method="taylor")),
    "L1 + repaired + recalibrated": Entry(partial(morphed, method="l1", repair=True)),
    "group norm + repaired + recalibrated": Entry(partial(morphed, method="group-norm", repair=True)),
    "Taylor + repaired + recalibrated": Entry(partial(morphed, method="taylor", repair=True), 3),
    "L1 + norms measured anew": Entry(partial(morphed, method="l1", recalibrate="absolute")),
    "group norm + recalibrated": Entry(partial(morphed, method="group-norm")),
    "random + recalibrated": Entry(partial(morphed, method="random"), 3),
    "slice + recalibrated": Entry(partial(morphed, method="slice")),
    "random": Entry(partial(morphed, method="random", recalibrate="none"), 3),
    "slice": Entry(partial(morphed, method="slice", recalibrate="none")),
    "select": Entry(partial(morphed, method="select", recalibrate="none")),
    "L1": Entry(partial(morphed, method="l1", recalibrate="none")),
    "group norm": Entry(partial(morphed, method="group-norm", recalibrate="none")),
    "Taylor": Entry(partial(morphed, method="taylor", recalibrate="none")),
    f"Taylor + repaired + recalibrated + {STEPS} steps": Entry(
        partial(morphed, method="taylor", repair=True, steps=STEPS)
    ),
}
"""In the order in which they are measured."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=sorted(WIDTHS), help="one of the tables")
    parser.add_argument("--row", action="append", help="a row; all if left out")
    parser.add_argument("--minutes", type=float, default=1e9, help="no row is begun after so many")
    parser.add_argument("--out", type=Path, default=FOLDER / "morph.json")
    parser.add_argument("--plot-only", action="store_true")
    arguments = parser.parse_args()
    result = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"rows": []}
    if not arguments.plot_only:
        run(arguments, result)
    plot(result, arguments.out.with_suffix(".png"))
    for table in WIDTHS:
        print("\n".join(lines(result, table)))


def run(arguments: argparse.Namespace, result: dict[str, Any]) -> None:
    """Measures what is not measured yet."""
    start = time.time()
    network = read(Path(os.environ["WEIGHTGEN_DATA"]) / NETWORK)[0].checkpoint
    data = Data(network, get_task("cifar10"))
    if "base" not in result:
        result["base"] = {"parameters": network.parameters, "accuracy": data.accuracy(network)}
        result["data"] = data.task.digest
        write(result, arguments.out)
    for table in [arguments.part] if arguments.part else WIDTHS:
        for name in arguments.row or ROWS:
            for seed, width in itertools.product(range(ROWS[name].seeds), WIDTHS[table]):
                key = {"table": table, "row": name, "width": width, "seed": seed}
                if any({one: row[one] for one in key} == key for row in result["rows"]):
                    continue
                if time.time() - start > 60 * arguments.minutes:
                    return
                begun = time.process_time()
                made, more = ROWS[name].make(data, table, width, seed)
                seconds = round(time.process_time() - begun, 1)
                row = {
                    **key, "architecture": str(made.architecture), "parameters": made.parameters,
                    "macs": made.card.made_with.get("macs"), "accuracy": data.accuracy(made), "seconds": seconds,
                    **more,
                }  # fmt: skip
                result["rows"].append(row)
                write(result, arguments.out)
                print(table, name, width, seed, f"{row['accuracy']:.4f}", f"{seconds} s", flush=True)


def write(result: dict[str, Any], path: Path) -> None:
    with atomic(path) as made:
        made.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def mean(result: dict[str, Any], table: str, name: str, width: float) -> float | None:
    """The mean test accuracy of a row over its seeds, %."""
    rows = [row for row in result["rows"] if (row["table"], row["row"], row["width"]) == (table, name, width)]
    return 100 * statistics.mean(row["accuracy"] for row in rows) if rows else None


def lines(result: dict[str, Any], table: str) -> list[str]:
    """One table as text: a line a row, a column a size."""
    names = list(dict.fromkeys(row["row"] for row in result["rows"] if row["table"] == table))
    titles = [f"{width:g}" for width in WIDTHS[table]]
    found = [f"| {table}: test accuracy, %, width × | 1 | {' | '.join(titles)} |", "|---" * (len(titles) + 2) + "|"]
    for name in names:
        cells = [mean(result, table, name, width) for width in WIDTHS[table]]
        shown = ["–" if cell is None else f"{cell:.1f}" for cell in cells]
        found.append(f"| {name} | {100 * result['base']['accuracy']:.1f} | {' | '.join(shown)} |")
    return found


def plot(result: dict[str, Any], path: Path) -> None:
    """Both tables as curves over true parameters of the whole network."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    titles = {"T1": "inner width of the last block", "T2": "all widths"}
    shown = [name for name in ROWS if " + " in name]
    shown += [name for name in dict.fromkeys(row["row"] for row in result["rows"]) if name not in ROWS]
    colours = dict(zip(shown, pyplot.get_cmap("tab10").colors * 2, strict=False))
    base = result["base"]
    for axis, table in zip(axes, WIDTHS, strict=True):
        for name in shown:
            rows = [row for row in result["rows"] if (row["table"], row["row"]) == (table, name)]
            sizes = {row["width"]: row["parameters"] for row in rows}
            points = [(size / 1e3, mean(result, table, name, width)) for width, size in sizes.items()]
            points = sorted([*points, (base["parameters"] / 1e3, 100 * base["accuracy"])])
            if rows:
                axis.plot(
                    *zip(*points, strict=True), marker="o", markersize=3, linewidth=1.3, label=name, color=colours[name]
                )
        axis.axhline(100 * base["accuracy"], color="black", linewidth=0.6, linestyle=":")
        axis.set_xlabel("parameters of the whole network, thousands")
        axis.set_title(titles[table], fontsize=10)
        axis.grid(linewidth=0.3)
    axes[0].set_ylabel("test accuracy, %")
    drawn = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(drawn.values(), drawn.keys(), loc="outside right center", frameon=False, fontsize=8)
    figure.savefig(path, dpi=180)


if __name__ == "__main__":
    main()
