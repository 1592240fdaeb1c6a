"""NeuMeta's tables: one trained function against networks that are made, and trained, one by one.

T1: ResNet-20 on CIFAR-10, the inner width of the last block; all before it is frozen. T2: the whole of ResNet-20, every
inner and residual width. T3: a convolutional network on MNIST, every hidden width. `forms`: what was tried for the form
of the function, on validation images. `speed`: how long one network takes.

Steps are shared out evenly: what trains one network for each size gets the steps of the function divided by the number
of sizes, with the same loop, images and rate. Every norm is recalibrated on the same 2,000 training images. Writes
results/neumeta.json after every row, and goes on from what it finds there.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from last_block import LastBlock
from torch import Tensor
from torch.nn import functional

from weightgen.architecture import Architecture
from weightgen.checkpoint import Checkpoint
from weightgen.generators.implicit import ImplicitConfig, ImplicitWeights
from weightgen.generators.neumeta import NeuMeta, function_of
from weightgen.generators.neumeta_recipes import fit
from weightgen.generators.neumeta_training import STATISTICS, NeuMetaTraining, fit_function
from weightgen.structure.ordering import smooth
from weightgen.structure.permutation import permuted
from weightgen.tasks import Task, get_task
from weightgen.tasks.evaluation import predictions
from weightgen.training.loop import LoopConfig
from weightgen.training.recalibration import recalibrate

RESULTS = Path(__file__).resolve().parent / "results"
STATES = Path("/tmp/weightgen-neumeta")
"""Where killed trainings go on from."""
FACTORS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
"""T2: of every width; 100 to 25 % of the parameters."""
HIDDEN = (4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 33, 36, 40, 44, 47)
"""T3: the hidden widths; trained are 8 to 32."""
FORMS = {
    "grid, nested": ImplicitConfig("nested", 0),
    "grid and perceptron, nested": ImplicitConfig("nested", 64),
    "perceptron on the checkpoint's grid, nested": ImplicitConfig("nested", 64, grid=False),
    "grid, spread in smooth order": ImplicitConfig("spread", 0),
}


def resnet20(task: Task) -> Checkpoint:
    """The published ResNet-20."""
    import os

    path = Path(os.environ["WEIGHTGEN_DATA"]) / "resnet_cifar10/resnet20-12fca82f.th"
    stored = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    architecture = Architecture.parse("weightgen/resnet")
    module = architecture.build()
    module.load_state_dict({name.removeprefix("module."): tensor for name, tensor in stored.items()}, strict=False)
    return Checkpoint(architecture, module.state_dict())


def accuracy(network: Checkpoint, task: Task, split: str) -> float:
    images, labels = task.split(split)
    if split == "validation":  # half of them tell enough
        images, labels = images[:2500], labels[:2500]
    return (predictions(network.build(), images) == labels).double().mean().item()


def training(steps: int, low: float = 0.5, high: float = 1.0, rate: float = 4e-3, **options: Any) -> NeuMetaTraining:
    return NeuMetaTraining(
        LoopConfig(steps, rate, warmup=min(100, steps // 10), save_every=100), low=low, high=high, **options
    )


class Results:
    """The rows of results/neumeta.json; each is made once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"rows": [], "seconds": {}}

    def has(self, **key: Any) -> bool:
        return any(all(row.get(name) == value for name, value in key.items()) for row in self.content["rows"])

    def add(self, rows: list[dict[str, Any]], label: str, seconds: float) -> None:
        self.content["rows"] += rows
        self.content["seconds"][label] = round(seconds, 1)
        self.content |= {"command": "scripts/benchmarks/neumeta", "torch": torch.__version__}
        self.path.write_text(json.dumps(self.content, indent=1) + "\n")
        for row in rows:
            print(row, file=sys.stderr, flush=True)


def said(label: str) -> Callable[[int, int, str], None]:
    """Progress as a line now and then."""

    def show(done: int, total: int, text: str) -> None:
        if done % max(1, total // 10) == 0:
            print(f"{label}: {done} of {total}, {text}", file=sys.stderr, flush=True)

    return show


def whole(results: Results, seed: int, steps: int, rate: float) -> None:
    """T2."""
    task = get_task("cifar10")
    base = resnet20(task)

    def rows(generator: NeuMeta, method: str, factors: tuple[float, ...], count: int) -> list[dict[str, Any]]:
        made = [(factor, generator.network(factor)) for factor in factors]
        return [
            {
                "table": "T2", "method": method, "seed": seed, "size": factor, "parameters": network.parameters,
                "steps": count, "validation": accuracy(network, task, "validation"),
                "accuracy": accuracy(network, task, "test"),
            }
            for factor, network in made
        ]  # fmt: skip

    def run(method: str, implicit: ImplicitConfig, factors: tuple[float, ...], count: int) -> None:
        if results.has(table="T2", method=method, seed=seed, size=factors[-1]):
            return
        begin, label = time.process_time(), f"T2 {method} {factors[-1]} {seed}"
        options = training(count, factors[-1], factors[0], rate, flip=True, autocast=True)
        state = STATES / f"{label}.safetensors"
        generator = fit(base, task, implicit, options, seed=seed, factors=factors, state=state, progress=said(label))
        results.add(rows(generator, method, factors, count), label, time.process_time() - begin)

    run("NeuMeta", OURS, FACTORS, steps)
    for factor in FACTORS:
        run("pruned (L1), each fine-tuned", ImplicitConfig("nested", 0), (factor,), steps // len(FACTORS))
    if not seed:
        run("pruned (L1), recalibrated", ImplicitConfig("nested", 0), FACTORS, 0)
        run("selected, recalibrated", ImplicitConfig("spread", 0), FACTORS, 0)


def forms(results: Results, steps: int) -> None:
    """What the form of the function is worth, on 2,500 validation images after a short training."""
    task = get_task("cifar10")
    base = resnet20(task)
    for form, implicit in FORMS.items():
        for rate in (4e-3,):
            if results.has(table="forms", method=form, rate=rate):
                continue
            begin = time.process_time()
            options = training(steps, 0.5, 1.0, rate, flip=True, autocast=True)
            generator = fit(base, task, implicit, options, factors=(1.0, 0.75, 0.5), progress=said(form))
            rows = [
                {
                    "table": "forms", "method": form, "rate": rate, "size": factor, "steps": steps,
                    "validation": accuracy(generator.network(factor), task, "validation"),
                }
                for factor in (1.0, 0.75, 0.5)
            ]  # fmt: skip
            results.add(rows, f"forms {form} {rate}", time.process_time() - begin)


def last_block(results: Results, seed: int, steps: int, rate: float) -> None:
    """T1: every method with the same features, and norms recalibrated on the same images."""
    task = get_task("cifar10")
    if results.has(table="T1", seed=seed, method=T1_METHODS[-1]):
        return
    begin = time.process_time()
    block = LastBlock.of(resnet20(task), task)
    results.content["seconds"]["T1 features"] = round(time.process_time() - begin, 1)
    learned = [name for name in block.tensors if not name.endswith(("mean", "var", "tracked"))]
    summed = {"block.conv1.weight", "block.conv2.weight", "linear.weight"}
    images, labels = block.features["train"]
    calibration = images[:2000].float()

    def rows(function: ImplicitWeights, method: str, widths: tuple[int, ...], count: int) -> list[dict[str, Any]]:
        made = []
        for width in widths:
            network = block.network((width,))
            network.load_state_dict(function((width,)))
            recalibrate(network, calibration)
            found = {
                split: (predictions(network, block.features[split][0].float()) == block.features[split][1])
                .double().mean().item()
                for split in ("validation", "test")
            }  # fmt: skip
            parameters = block.before + sum(parameter.numel() for parameter in network.parameters())
            made.append(
                {
                    "table": "T1", "method": method, "seed": seed, "size": width, "parameters": parameters,
                    "steps": count, "validation": found["validation"], "accuracy": found["test"],
                }
            )  # fmt: skip
        return made

    def run(method: str, order: Tensor, widths: tuple[int, ...], count: int, hidden: int, **options: Any) -> None:
        if results.has(table="T1", method=method, seed=seed, size=widths[-1]):
            return
        begin, group = time.process_time(), block.graph.groups[0]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            config = ImplicitConfig("nested", hidden)
            function = ImplicitWeights(permuted(block.tensors, group, order), block.graph, learned, summed, config)
            if count:
                fit_function(
                    function, block.network, options.pop("sizes", lambda factor: (int(64 * factor + 0.5),)),
                    (images, labels), training(count, rate=rate, batch=128, autocast=True, **options),
                    seed=seed, progress=said(f"T1 {method}"),
                )  # fmt: skip
        results.add(
            rows(function, method, widths, count), f"T1 {method} {widths[-1]} {seed}", time.process_time() - begin
        )

    orders = {
        "random": torch.randperm(64, generator=torch.Generator().manual_seed(seed)),
        "L1": by_l1(block.tensors),
        "Taylor": by_taylor(block),
        "selection": torch.tensor(sorted(range(64), key=lambda unit: f"{unit:06b}"[::-1])),
    }
    for method, order in orders.items():
        run(f"{method}, recalibrated", order, WIDTHS, 0, 0)
    importance = orders["Taylor"]
    for width in WIDTHS:
        factor = width / 64
        run("Taylor, each fine-tuned", importance, (width,), steps // len(WIDTHS), 0, low=factor, high=factor)
    three = [(64,), (48,), (32,)]
    run("slimmable", importance, WIDTHS, steps, 0,
        sizes=lambda factor: three[min(2, int(6 * (1 - factor)))])  # fmt: skip
    run("NeuMeta", importance, WIDTHS, steps, OURS.hidden, scatter=0.15)


def by_l1(tensors: Mapping[str, Tensor]) -> Tensor:
    """Inner units of the last block, those with the largest weights first."""
    return tensors["block.conv1.weight"].abs().sum((1, 2, 3)).argsort(descending=True)


def by_taylor(block: LastBlock) -> Tensor:
    """Those that the loss on 2,000 training images depends on most first, https://arxiv.org/abs/1906.10771."""
    network = block.network((64,))
    network.load_state_dict(block.tensors)
    network.eval()
    images, labels = block.features["train"]
    names = ("conv1.weight", "bn1.weight", "bn1.bias")
    scores = torch.zeros(64)
    for part, truth in zip(images[:2000].float().split(100), labels[:2000].split(100), strict=True):
        parameters = [network.block.get_parameter(name) for name in names]
        gradients = torch.autograd.grad(functional.cross_entropy(network(part), truth), parameters)
        products = [(one * gradient).flatten(1).sum(1) if one.dim() > 1 else one * gradient
                    for one, gradient in zip(parameters, gradients, strict=True)]  # fmt: skip
        scores += torch.stack(products).sum(0).square().detach()
    return scores.argsort(descending=True)


def digits(results: Results, seed: int, steps: int, rate: float) -> None:
    """T3: a checkpoint of width 32 is trained first, and its time counts."""
    if results.has(table="T3", seed=seed, size=HIDDEN[-1]):
        return
    task, begin = get_task("mnist"), time.process_time()
    architecture = Architecture.parse(LENET)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = Checkpoint(architecture, architecture.build().state_dict())
    grid = ImplicitConfig("nested", 0)
    first = training(steps // 6, 1.0, 1.0, rate)
    base = fit(fresh, task, grid, first, seed=seed, progress=said("T3 checkpoint")).network(1.0)
    state = STATES / f"T3 {seed}.safetensors"
    options = training(steps, 0.25, 1.0, rate, **T3_OPTIONS)
    generator = fit(base, task, grid, options, seed=seed, state=state, progress=said("T3"))
    seconds = time.process_time() - begin
    rows = []
    for width in HIDDEN:
        network = generator.network(width / 32)
        rows.append(
            {
                "table": "T3", "method": "NeuMeta", "seed": seed, "size": width, "parameters": network.parameters,
                "steps": steps, "validation": accuracy(network, task, "validation"),
                "accuracy": accuracy(network, task, "test"),
            }
        )  # fmt: skip
    results.add(rows, f"T3 {seed}", seconds)


LENET = "weightgen/cnn?channels=32,32,32&classes=10&grid=4&input=1,28,28&kernel=5"
T3_OPTIONS: dict[str, Any] = {"ends": 0.25, "scatter": 0.15}
WIDTHS = (64, 48, 32, 16)
"""T1: the inner width of the last block; 16 is never trained."""
T1_METHODS = ("NeuMeta",)
OURS = ImplicitConfig("nested", 64)
"""The form that is best on validation images, see `forms`."""


def speed(results: Results) -> None:
    """Processor seconds, one thread, for all weights of ResNet-20: at a new width, again, and for the smooth order."""
    if results.has(table="speed"):
        return
    architecture = Architecture.parse("weightgen/resnet")
    network = architecture.build().state_dict()
    generator = NeuMeta(function_of(architecture, network, OURS), architecture, "cifar10", (0.5, 1.0))
    rows = []
    for what in ("sampled, new width", "sampled, width seen before"):
        taken = []
        for width in [0.25 + 0.06 * index for index in range(12)]:
            begin = time.process_time()
            generator.tensors(generator.sizes(width))
            taken.append(time.process_time() - begin)
        rows.append({"what": what, "seconds": statistics.median(taken), "least": min(taken), "most": max(taken)})
    groups, taken = architecture.axes().groups, []
    for _ in range(2):
        begin = time.process_time()
        smooth(network, groups, STATISTICS)
        taken.append(time.process_time() - begin)
    rows.append({"what": "smoothed", "seconds": statistics.median(taken), "least": min(taken), "most": max(taken)})
    results.add([{"table": "speed", **row} for row in rows], "speed", sum(taken))


def lines(content: dict[str, Any], table: str) -> list[str]:
    """A table as text, a column a size; the mean over seeds."""
    rows = [row for row in content["rows"] if row["table"] == table]
    shown = "validation" if table == "forms" else "accuracy"
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    found = [f"| {table}: {shown}, % | {' | '.join(map(str, sizes))} |", "|---" * (len(sizes) + 1) + "|"]
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = []
        for size in sizes:
            values = [100 * row[shown] for row in rows if (row["method"], row["size"]) == (method, size)]
            cells.append(f"{statistics.mean(values):.1f}" if values else "–")
        found.append(f"| {method} | {' | '.join(cells)} |")
    return found


def plot(content: dict[str, Any], path: Path) -> None:
    """T1 and T2 over true parameters of the whole network, T3 over the hidden width."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    tables = {
        "T1": ("parameters", "ResNet-20, width of the last block"), "T2": ("parameters", "ResNet-20, all widths"),
        "T3": ("size", "CNN on MNIST, all hidden widths"),
    }  # fmt: skip
    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for axis, (table, (along, title)) in zip(axes, tables.items(), strict=True):
        rows = [row for row in content["rows"] if row["table"] == table and row["seed"] == 0]
        for method in dict.fromkeys(row["method"] for row in rows):
            points = sorted((row[along], 100 * row["accuracy"]) for row in rows if row["method"] == method)
            ours = method == "NeuMeta"
            axis.plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=2 if ours else 1, label=method,
                      color="black" if ours else None)  # fmt: skip
        if table == "T3":
            axis.axvspan(8, 32, color="black", alpha=0.08, linewidth=0, label="trained")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("hidden width" if table == "T3" else "parameters of the whole network")
        axis.grid(linewidth=0.3)
        if rows:
            axis.legend(fontsize=7, frameon=False)
    axes[0].set_ylabel("test accuracy, %")
    figure.savefig(path, dpi=150, metadata={"Software": None})
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", default="all", help="t1, t2, t3, forms, speed, all, or plot for what is there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1200, help="of the function, T2")
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--out", type=Path, default=RESULTS / "neumeta.json")
    options = parser.parse_args()
    results = Results(options.out)
    STATES.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    if options.part in ("forms", "all"):
        forms(results, 150)
    if options.part in ("t2", "all"):
        whole(results, options.seed, options.steps, options.rate)
    if options.part in ("t1", "all"):
        last_block(results, options.seed, 600, 2e-3)
    if options.part in ("t3", "all"):
        digits(results, options.seed, 16_000, 3e-3)
    if options.part in ("speed", "all"):
        speed(results)
    plot(results.content, options.out.with_suffix(".png"))
    for table in ("T1", "T2", "T3", "forms"):
        print("\n".join(lines(results.content, table)))


if __name__ == "__main__":
    main()
