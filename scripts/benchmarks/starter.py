"""The starter generator against trained networks and the trivial baselines, on accuracy and novelty at equal budgets.

Three generators are measured: the one that ships, and two more trained with other seeds on the same tokenizer, which
are kept in runs/benchmarks. Each draws with its own seed.

Writes results/starter.json and results/starter.png beside this file. Run it as `scripts/benchmarks/starter`.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import readme
import torch
from torch import Tensor

from weightgen.evaluation.novelty import Reference, measure_novelty, token_replay
from weightgen.generation import REFINE_RATE
from weightgen.generators.baselines import baselines
from weightgen.generators.igpg import IGPG, conditioning
from weightgen.generators.recipes import make_igpg
from weightgen.instructions import Request
from weightgen.instructions.templates import sentences
from weightgen.tasks import get_task
from weightgen.tokenizers import Cell
from weightgen.training.population import Run, Schedule, initial, population_predictions, train_population
from weightgen.zoo import Zoo
from weightgen.zoo.cells import zoo_cells

FOLDER = Path(__file__).resolve().parent / "results"
RUNS = FOLDER.parents[2] / "runs/benchmarks"
OURS, REFINED, SCRATCH, FRESH = "IGPG", "IGPG + 50 steps", "scratch, 50 steps", "freshly trained"
STEPS = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generator", default="starter")
    parser.add_argument("--zoo", default="starter")
    parser.add_argument("--samples", type=int, default=20, help="networks for each architecture")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--baseline-seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--plot-only", action="store_true", help="draw the committed results again")
    options = parser.parse_args()
    if options.plot_only:
        plot(json.loads((options.out / "starter.json").read_text())["summary"], options.out / "starter.png")
        return
    torch.set_num_threads(max(torch.get_num_threads(), 2))
    zoo = Zoo.open(options.zoo)
    generators = trained_generators(options.generator, options.zoo, options.seeds)
    igpg = generators[0]
    cells, fresh = zoo_cells(zoo), zoo_cells(zoo, "split != 'train'")
    rows: list[dict[str, Any]] = []
    begin = time.perf_counter()
    for cell, unseen in zip(cells, fresh, strict=True):
        bench = Bench(igpg, cell)
        for seed, generator in enumerate(generators):
            rows += bench.written(generator, options.samples, seed)
        for seed in range(options.baseline_seeds):
            rows += bench.trivial(options.samples, seed)
        rows += bench.measure(FRESH, 0, dict(unseen.tensors))
        print(f"{time.perf_counter() - begin:5.0f} s  {cell.task} {cell.architecture}", file=sys.stderr, flush=True)
    result = {
        "command": f"scripts/benchmarks/starter --samples {options.samples} --seeds {options.seeds}",
        "generators": [generator.provenance["id"] for generator in generators],
        "zoo": zoo.digest,
        "samples": options.samples,
        "seeds": options.seeds,
        "baseline_seeds": options.baseline_seeds,
        "summary": summary(rows),
        "control": control(igpg, cells, options.samples),
        "rows": rows,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "starter.json").write_text(json.dumps(result, indent=1) + "\n")
    plot(result["summary"], options.out / "starter.png")
    print("\n".join([*readme.table(result), "", *readme.control(result)]))


def trained_generators(generator: str, zoo: str, count: int) -> list[IGPG]:
    """The generator of that name and others that differ from it in the seed of their training."""
    shipped = IGPG.from_pretrained(generator)
    named, training = shipped.provenance["tokenizer"], shipped.provenance["training"]
    found = [shipped]
    for seed in range(1, count):
        folder = RUNS / f"igpg-{named['id']}-seed-{seed}"
        if not (folder / "model.safetensors").exists():
            make_igpg(zoo, named["name"], folder, steps=training["loop"]["steps"], seed=training["seed"] + seed)
        found.append(IGPG.from_pretrained(folder))
    return found


class Bench:
    """One task and architecture: its training networks as the reference of novelty, and all methods."""

    def __init__(self, igpg: IGPG, cell: Cell) -> None:
        self.cell, self.task = cell, get_task(cell.task)
        self.images, self.labels = self.task.test()
        self.seen = igpg.remembered[f"{cell.task}|{cell.architecture}"]
        errors = self.errors(dict(cell.tensors))
        self.accuracy = 1 - errors.double().mean().item()
        self.reference = Reference.of(cell.architecture, cell.tensors, self.compared(errors))
        self.aligned = igpg.tokenizer.normalizer(cell.architecture).align(cell.tensors, cell.task)
        family = cell.architecture.family.rpartition("/")[2]
        # From the templates the generator was trained with, under another seed: some sentences may be the same.
        self.prompts = [one.text for one in sentences(cell.task, 400, 7) if one.family in (None, family)]

    def errors(self, tensors: dict[str, Tensor]) -> Tensor:
        return population_predictions(self.cell.architecture, tensors, self.images) != self.labels

    def compared(self, errors: Tensor) -> Tensor:
        """The part of the test images on which errors are compared."""
        return errors[:, : self.seen.errors.shape[1]]

    def written(self, igpg: IGPG, count: int, seed: int) -> list[dict[str, Any]]:
        """What a generator writes, as it is and refined, and scratch training beside it."""
        architecture = self.cell.architecture
        generator = torch.Generator().manual_seed(seed)
        picks = torch.randint(len(self.prompts), (count,), generator=generator).tolist()
        spoken = [conditioning(Request(self.prompts[pick], self.cell.task)) for pick in picks]
        codes = igpg.sample_codes(architecture, spoken, seed)
        tensors = igpg.tokenizer.decode_batch(codes, architecture)
        rows = self.measure(OURS, seed, tensors, token_replay(codes[:, 1:], self.seen.codes[:, 1:]))
        rows += self.measure(REFINED, seed, self.train(tensors, seed))
        rows += self.measure(SCRATCH, seed, self.train(initial(architecture, range(seed, seed + count)), seed))
        return rows

    def trivial(self, count: int, seed: int) -> list[dict[str, Any]]:
        """All trivial baselines."""
        rows = []
        for name in baselines:
            generator = torch.Generator().manual_seed(seed)
            rows += self.measure(name, seed, baselines[name](self.aligned, count, generator))
        return rows

    def train(self, start: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
        count = len(next(iter(start.values())))
        runs = [Run(1000 * seed + index, REFINE_RATE, 0.0) for index in range(count)]
        return train_population(self.cell.architecture, self.task, runs, Schedule(STEPS), start=start)

    def measure(
        self, method: str, seed: int, tensors: dict[str, Tensor], replay: Tensor | None = None
    ) -> list[dict[str, Any]]:
        """One row for each network."""
        finite = all(bool(tensor.isfinite().all()) for tensor in tensors.values())
        errors = self.errors(tensors)
        novelty = measure_novelty(self.reference, tensors, self.compared(errors))
        accuracy = 1 - errors.double().mean(1)
        return [
            {
                "task": self.cell.task,
                "architecture": str(self.cell.architecture),
                "method": method,
                "seed": seed,
                "finite": finite,
                "accuracy": round(accuracy[index].item(), 5),
                "gap": round(accuracy[index].item() - self.accuracy, 5),
                "distance_ratio": round(novelty.distance_ratio[index].item(), 4),
                "zoo_ratio": round(novelty.zoo_ratio[index].item(), 4),
                "sample_ratio": round(novelty.sample_ratio[index].item(), 4),
                "error_iou": round(novelty.error_iou[index].item(), 4),
                "iou_bar": round(self.reference.largest_overlap, 4),
                "novel_and_performant": bool(
                    accuracy[index] >= self.accuracy - 0.01
                    and novelty.distance_ratio[index] >= 0.95
                    and novelty.error_iou[index] <= self.reference.largest_overlap
                ),
                "token_replay": None if replay is None else round(replay[index].item(), 4),
            }
            for index in range(len(accuracy))
        ]


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each task and method the figures over all networks of a seed, and their mean and deviation over the seeds."""
    found = []
    zoo_means: dict[str, float] = {}
    for task in sorted({row["task"] for row in rows}):
        of_task = [row for row in rows if row["task"] == task]
        zoo_means[task] = statistics.mean(row["accuracy"] - row["gap"] for row in of_task if row["method"] == OURS)
        for method in dict.fromkeys(row["method"] for row in of_task):
            of_method = [row for row in of_task if row["method"] == method]
            seeds = [
                [row for row in of_method if row["seed"] == seed] for seed in sorted({row["seed"] for row in of_method})
            ]

            def over_seeds(figure: Callable[[list[dict]], float], seeds: list = seeds) -> dict[str, float]:
                values = [figure(part) for part in seeds]
                return {"mean": statistics.mean(values), "deviation": statistics.pstdev(values)}

            found.append(
                {
                    "task": task,
                    "method": method,
                    "networks": len(of_method),
                    "zoo_accuracy": zoo_means[task],
                    "finite": all(row["finite"] for row in of_method),
                    "accuracy": over_seeds(lambda part: statistics.mean(row["accuracy"] for row in part)),
                    "gap": over_seeds(lambda part: statistics.mean(row["gap"] for row in part)),
                    **{
                        name: over_seeds(lambda part, name=name: statistics.median(row[name] for row in part))
                        for name in ("distance_ratio", "zoo_ratio", "sample_ratio", "error_iou")
                    },
                    "novel_and_performant": over_seeds(
                        lambda part: statistics.mean(row["novel_and_performant"] for row in part)
                    ),
                    "novel_at": {
                        str(bar): over_seeds(
                            lambda part, bar=bar: statistics.mean(
                                row["gap"] >= -0.01 and row["distance_ratio"] >= bar for row in part
                            )
                        )["mean"]
                        for bar in (0.25, 0.5, 0.75, 0.95, 1.05)
                    },
                    "token_replay": max(
                        (row["token_replay"] for row in of_method if row["token_replay"]), default=None
                    ),
                }
            )
    return found


def control(igpg: IGPG, cells: list[Cell], count: int) -> list[dict[str, Any]]:
    """Accuracy on a task of networks written from the other task's instruction, in the same architecture.

    Beside it, what trained networks of the other task get on this one: chance is the bar only where they are at chance.
    """
    found = []
    for cell in cells:
        for other in cells:
            if other.task == cell.task or other.architecture.signature != cell.architecture.signature:
                continue
            spoken = [conditioning(Request(one.text, other.task)) for one in sentences(other.task, count, 7)]
            images, labels = get_task(cell.task).test()

            def right(
                tensors: Mapping[str, Tensor], cell: Cell = cell, images: Tensor = images, labels: Tensor = labels
            ):
                predicted = population_predictions(cell.architecture, dict(tensors), images)
                return round((predicted == labels).double().mean().item(), 5)

            wrong = igpg.sample_tensors(cell.architecture, spoken, 0)
            found.append(
                {
                    "task": cell.task,
                    "architecture": str(cell.architecture),
                    "instruction": other.task,
                    "accuracy": right(wrong),
                    "trained_on_the_other": right(other.tensors),
                }
            )
    return found


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Accuracy against novelty, the frontier of the trivial baselines drawn in."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    tasks = sorted({row["task"] for row in rows})
    figure, axes = pyplot.subplots(1, len(tasks), figsize=(6.2 * len(tasks), 4.8), squeeze=False)
    styles = {OURS: ("#c0392b", "*", 260), REFINED: ("#e67e22", "*", 200), FRESH: ("#27ae60", "D", 70),
              SCRATCH: ("#7f8c8d", "s", 60)}  # fmt: skip
    for axis, task in zip(axes[0], tasks, strict=True):
        of_task = [row for row in rows if row["task"] == task]
        bar = of_task[0]["zoo_accuracy"]

        def place(row: dict[str, Any], bar: float = bar) -> tuple[float, float]:
            """Points below the zoo's mean on a logarithmic axis, where what is good would else lie on one line."""
            return row["distance_ratio"]["mean"], max(0.1, 100 * (bar - row["accuracy"]["mean"]))

        trivial = sorted(place(row) for row in of_task if row["method"] not in styles)
        frontier = [spot for index, spot in enumerate(trivial) if spot[1] <= min(low for _, low in trivial[index:])]
        axis.plot(*zip(*frontier, strict=True), color="#95a5a6", linewidth=1, zorder=1)
        for row in of_task:
            color, marker, size = styles.get(row["method"], ("#2c3e50", "o", 28))
            axis.scatter(*place(row), c=color, marker=marker, s=size, zorder=3)
            above = row["method"] in (REFINED, "soup of 2", "checkpoint + noise 0.1", "checkpoint + noise 0.2")
            offset = (6, 7) if above else (6, -9)
            axis.annotate(row["method"], place(row), textcoords="offset points", xytext=offset, fontsize=7)
        axis.axhline(1, color="#bdc3c7", linestyle=":", linewidth=1)
        axis.set_yscale("log")
        axis.invert_yaxis()
        axis.set_title(f"{task}: zoo mean {100 * bar:.2f} %, dotted 1 point below", fontsize=10)
        axis.set_xlabel(
            "median distance to the nearest training network or earlier sample\n(1 = spacing of training runs)"
        )
        axis.set_ylabel("points below the zoo's mean accuracy")
        axis.set_xlim(-0.05, 1.5)
    figure.tight_layout()
    figure.savefig(path, dpi=130, metadata={"Software": None})


if __name__ == "__main__":
    main()
