"""A classifier of turned digits that is told the angle, against one for all angles and ones trained for a single angle.

MNIST turned by 0 to 180°: a 6 upside down is a 9, so one network for all angles cannot be right about both, and the one
of a single angle is right there alone. All have the same network of 11,978 parameters, steps and images a step. Writes
results/hypernetwork_rotation.json after every training, goes on where it was stopped, and draws
results/hypernetwork_rotation.png. Run it as `scripts/benchmarks/hypernetwork-rotation`.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rotated import LARGEST, primary
from torch import Tensor, nn

from weightgen.generators.conditions import Scalar
from weightgen.generators.hypernetwork import hypernetwork
from weightgen.generators.hypernetwork_training import fit_task
from weightgen.storage import write_text
from weightgen.tasks import Task, get_task
from weightgen.tasks.changes import rotated
from weightgen.training.loop import LoopConfig, train

FOLDER = Path(__file__).resolve().parent / "results"
ANGLES = [LARGEST * index / 12 for index in range(13)]
SINGLE = (0.0, 90.0, 180.0)
STEPS, BATCH, SEEDS, TESTED = 1000, 64, 3, 5000
HYPER, ALL = "one hypernetwork, told the angle", "one network for all angles"
LOOP = LoopConfig(STEPS, 1e-3, weight_decay=0.0)


def trained(task: Task, name: str, seed: int) -> Callable[[float, Tensor], Tensor]:
    """(angle, images) → logits of the network, or hypernetwork, of that name."""
    torch.manual_seed(seed)
    if name == HYPER:
        hyper = hypernetwork(primary(), {"rotation": Scalar(0, LARGEST)})
        fit_task(hyper, task, LOOP, batch=BATCH, seed=seed)
        return lambda angle, images: hyper({"rotation": angle}, images)
    network = primary()
    images, labels = task.train()

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        angle = LARGEST * torch.rand(()).item() if name == ALL else _angle(name)
        index = torch.randint(len(labels), (BATCH,))
        value = nn.functional.cross_entropy(network(rotated(images[index], angle)), labels[index])
        return value, {"loss": value.item()}

    train(network, loss, LOOP)
    return lambda angle, images: network(images)


def _angle(name: str) -> float:
    return float(name.split()[-1].removesuffix("°"))


@torch.no_grad()
def accuracies(answer: Callable[[float, Tensor], Tensor], task: Task) -> list[float]:
    """Test accuracy at each angle."""
    images, labels = (part[:TESTED] for part in task.test())
    return [
        round((answer(angle, rotated(images, angle)).argmax(-1) == labels).double().mean().item(), 4)
        for angle in ANGLES
    ]


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """Mean accuracies over seeds: over all angles, and against a network of its own at each of the single angles."""
    curves = {name: mean_curve(rows) for name, rows in by_name(result).items()}
    names = [name for name in curves if name not in (HYPER, ALL)]
    return {
        "mean_of_all_angles": {name: round(statistics.mean(curve), 4) for name, curve in curves.items()},
        "less_than_a_network_of_its_own": {
            name: round(curves[name][place] - curves[HYPER][place], 4)
            for name in names
            for place in [ANGLES.index(_angle(name))]
        },
        "seconds_of_a_training": {
            name: round(statistics.mean(row["seconds"] for row in rows), 1) for name, rows in by_name(result).items()
        },
    }


def by_name(result: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    names = dict.fromkeys(row["name"] for row in result["runs"])
    return {name: [row for row in result["runs"] if row["name"] == name] for name in names}


def mean_curve(rows: list[dict[str, Any]]) -> list[float]:
    return [statistics.mean(values) for values in zip(*(row["accuracies"] for row in rows), strict=True)]


def plot(result: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6.4, 4))
    colors = {HYPER: "#c0392b", ALL: "#2c3e50"}
    styles = dict(zip([name for name in by_name(result) if name not in colors], ("--", ":", "-."), strict=False))
    for name, rows in by_name(result).items():
        values = [100 * value for value in mean_curve(rows)]
        single = name not in colors
        axis.plot(
            ANGLES, values, color=colors.get(name, "#95a5a6"), marker=None if single else "o", markersize=4,
            linewidth=1 if single else 2, linestyle=styles.get(name, "-"), label=name,
        )  # fmt: skip
        if single:
            place = ANGLES.index(_angle(name))
            axis.plot(ANGLES[place], values[place], color="#7f8c8d", marker="s")
    axis.set_xlabel("angle, °")
    axis.set_ylabel(f"test accuracy, mean of {SEEDS} seeds, %")
    axis.set_xticks(range(0, 181, 30))
    axis.legend(fontsize=7, loc="lower center")
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--plot-only", action="store_true", help="draw the committed results again")
    options = parser.parse_args()
    path = options.out / "hypernetwork_rotation.json"
    result: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"runs": []}
    if not options.plot_only:
        torch.set_num_threads(1)
        task = get_task("mnist")
        names = [HYPER, ALL, *(f"trained at {angle:.0f}°" for angle in SINGLE)]
        result |= {
            "command": "scripts/benchmarks/hypernetwork-rotation", "data": task.digest, "torch": torch.__version__,
            "steps": STEPS, "batch": BATCH, "test_images": TESTED, "angles": ANGLES,
        }  # fmt: skip
        done = {(row["name"], row["seed"]) for row in result["runs"]}
        for name, seed in [(name, seed) for seed in range(SEEDS) for name in names if (name, seed) not in done]:
            begin = time.process_time()
            answer = trained(task, name, seed)
            seconds = round(time.process_time() - begin, 1)
            row = {"name": name, "seed": seed, "seconds": seconds, "accuracies": accuracies(answer, task)}
            result["runs"].append(row)
            result["summary"] = summary(result)
            write_text(path, json.dumps(result, indent=1) + "\n")
            print(row, file=sys.stderr, flush=True)
    plot(result, options.out / "hypernetwork_rotation.png")
    print(json.dumps(summary(result), indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
