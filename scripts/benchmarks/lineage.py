"""How well fine-tuning is found from weights: families of networks that are trained for the purpose.

Parents are trained apart on digits; children go on from a parent's weights with other data orders, learning rates and
numbers of steps, some of them on another task with a new head. Networks without relatives stand between them. Writes
results/lineage.json. Run it as `scripts/benchmarks/lineage`.
"""

import json
import tempfile
import time
from pathlib import Path

import torch

from weightgen.architecture import Architecture
from weightgen.checkpoint import Card, Checkpoint
from weightgen.tasks import evaluate, get_task
from weightgen.training.population import Run, Schedule, initial, train_population
from weightgen.zoo import Zoo

RESULT = Path(__file__).resolve().parent / "results" / "lineage.json"
ARCHITECTURES = ("weightgen/mlp?hidden=32,32", "weightgen/cnn?channels=8,16")
PARENTS, STRANGERS = 6, 6
"""Of each architecture."""

FIRST_SEED = 5000
"""The rules of the inference were found on networks of other seeds, 0 and up."""

FINE_TUNINGS = (
    # task, steps, least and greatest learning rate, children of each parent
    ("digits", 100, 1e-3, 1e-2, 4),
    ("digits", 400, 1e-3, 1e-2, 4),
    ("digits/even-odd", 300, 1e-3, 1e-2, 4),
)


def networks(tensors: dict, index: int) -> dict:
    return {name: values[index].clone() for name, values in tensors.items()}


def main() -> None:
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        zoo = Zoo.create(Path(folder) / "zoo")
        truth: set[tuple[str, str]] = set()
        accuracies: dict[str, list[float]] = {}
        for recipe in ARCHITECTURES:
            family(zoo, recipe, truth, accuracies)
        started = time.perf_counter()
        edges = zoo.infer_lineage()
        seconds = time.perf_counter() - started
        found = {(edge.child, edge.parent) for edge in edges}
        right = len(found & truth)
        undirected = len({frozenset(pair) for pair in found} & {frozenset(pair) for pair in truth})
        precision, recall = right / max(len(found), 1), right / len(truth)
        sure = {(edge.child, edge.parent) for edge in edges if edge.confidence >= 0.5}
        result = {
            "command": "scripts/benchmarks/lineage",
            "networks": len(zoo), "parents": PARENTS * len(ARCHITECTURES), "edges": len(truth), "found": len(found),
            "precision": round(precision, 4), "recall": round(recall, 4),
            "f1": round(2 * precision * recall / max(precision + recall, 1e-9), 4),
            "right_but_for_direction": undirected - right,
            "of_confidence_half_or_more": {"found": len(sure), "right": len(sure & truth)},
            "mean_accuracy": {name: round(sum(values) / len(values), 4) for name, values in accuracies.items()},
            "inference_seconds": round(seconds, 2), "training_seconds": round(started - begin, 1),
        }  # fmt: skip
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def family(zoo: Zoo, recipe: str, truth: set, accuracies: dict) -> None:
    """Parents, strangers and children of one architecture."""
    architecture, task = Architecture.parse(recipe), get_task("digits")
    runs = [Run(FIRST_SEED + index, 5e-3, 1e-4) for index in range(PARENTS + STRANGERS)]
    trained = train_population(architecture, task, runs, Schedule(600))
    made = [Checkpoint(architecture, networks(trained, index), Card("digits")) for index in range(len(runs))]
    add(zoo, made, accuracies, "parents")
    for number, (name, steps, least, greatest, children) in enumerate(FINE_TUNINGS):
        other = get_task(name)
        target = architecture.replace(classes=len(other.classes))
        parents = [index for index in range(PARENTS) for _ in range(children)]
        random = torch.Generator().manual_seed(FIRST_SEED + number)
        rates = (least * (greatest / least) ** torch.rand(len(parents), generator=random)).tolist()
        tuned = [Run(FIRST_SEED + 10_000 * (number + 1) + index, rate, 1e-4) for index, rate in enumerate(rates)]
        start = {each: values[parents] for each, values in trained.items()}
        if target != architecture:
            fresh = initial(target, [run.seed for run in tuned])
            start = {
                each: values if values.shape == fresh[each].shape else fresh[each] for each, values in start.items()
            }
        result = train_population(target, other, tuned, Schedule(steps), start=start)
        born = [Checkpoint(target, networks(result, index), Card(name)) for index in range(len(parents))]
        add(zoo, born, accuracies, f"{name}, {steps} steps")
        truth |= {(child.id, made[parent].id) for child, parent in zip(born, parents, strict=True)}


def add(zoo: Zoo, made: list[Checkpoint], accuracies: dict, label: str) -> None:
    zoo.add(made)
    task = get_task(str(made[0].card.task))
    figures = accuracies.setdefault(label, [])
    figures += [evaluate(one.build(), task)["metrics"]["accuracy"] for one in made[:3]]


if __name__ == "__main__":
    main()
