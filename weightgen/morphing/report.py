"""The report of a morph: accuracy against true parameters and multiplications, for all methods and many sizes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weightgen.checkpoint import Checkpoint
from weightgen.errors import OutputError
from weightgen.generators.resizing import methods
from weightgen.morphing.morph import morph
from weightgen.storage import atomic
from weightgen.tasks import Task
from weightgen.training.loop import Progress

WIDTHS = (0.25, 0.37, 0.5, 0.625, 0.75, 0.875, 1.0)
"""Sizes of a report, as factors of all widths."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
"""Those of Okabe and Ito, which the colour-blind tell apart."""


def report(
    checkpoint: Checkpoint,
    task: Task,
    folder: Path,
    *,
    names: Sequence[str] | None = None,
    widths: Sequence[float] = WIDTHS,
    finetune_steps: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Morphs a network by every method to every size, and writes `report.json`, `report.md` and `report.png`.

    Norms are recalibrated on training data for all methods alike.

    Args:
        checkpoint: the network.
        task: what it is measured on, on the test split.
        names: of methods; all that shrink if left out.
        widths: factors; those above 1 are asked of methods that grow.

    Returns:
        What `report.json` holds.

    Raises:
        OutputError: if the folder holds a report of another network.
    """
    known = methods()
    names = [name for name in known if known[name].shrinks] if names is None else names
    wanted = [
        (name, width)
        for name in names
        for width in widths
        if width != 1 and (known[name].shrinks if width < 1 else known[name].grows)
    ]
    result = _begun(folder, checkpoint, task, finetune_steps, seed)
    for done, (name, width) in enumerate(wanted):
        if any((row["method"], row["width"]) == (name, width) for row in result["rows"]):
            continue
        made = morph(
            checkpoint, width=width, method=name, task=task, finetune_steps=finetune_steps, seed=seed,
            before=result["before"]["metrics"] if "before" in result else None,
        )  # fmt: skip
        result["before"] = dict(made.before)
        result["rows"].append({
            "method": name, "width": width, "parameters": made.checkpoint.parameters, "macs": made.macs,
            "accuracy": made.metrics["accuracy"], "architecture": str(made.checkpoint.architecture),
            "notes": list(made.notes),
        })  # fmt: skip
        _write(folder, result)
        if progress is not None:
            progress(done + 1, len(wanted), f"{name} {width}")
    (folder / "report.md").write_text(_table(result), encoding="utf-8")
    plot(result, folder / "report.png")
    return result


def _begun(folder: Path, checkpoint: Checkpoint, task: Task, steps: int, seed: int) -> dict[str, Any]:
    """The report as far as it is, so that one which was killed goes on."""
    same = {
        "network": checkpoint.id, "architecture": str(checkpoint.architecture), "task": task.name,
        "digest": task.digest, "split": "test", "finetune_steps": steps, "seed": seed,
    }  # fmt: skip
    path = folder / "report.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        return {**same, "rows": []}
    found = json.loads(path.read_text(encoding="utf-8"))
    if {key: found.get(key) for key in same} != same:
        raise OutputError("the folder holds the report of another network", where=folder, remedy="choose another one")
    return found


def _write(folder: Path, result: Mapping[str, Any]) -> None:
    with atomic(folder / "report.json") as path:
        Path(path).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _table(result: Mapping[str, Any]) -> str:
    before = result["before"]
    lines = [
        f"# {result['architecture']} on {result['task']} ({result['split']})", "",
        "| method | width | parameters | MACs | accuracy, % |", "|---|---|---|---|---|",
        _row("as it was", 1.0, before, before["metrics"]["accuracy"]),
    ]  # fmt: skip
    for row in sorted(result["rows"], key=lambda row: (-row["width"], row["method"])):
        lines.append(_row(row["method"], row["width"], row, row["accuracy"]))
    return "\n".join(lines) + "\n"


def _row(name: str, width: float, numbers: Mapping[str, Any], accuracy: float) -> str:
    return f"| {name} | {width:g} | {numbers['parameters']:,} | {numbers['macs']:,} | {100 * accuracy:.1f} |"


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draws accuracy against parameters and against multiplications, a line for each method."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    before = result["before"]
    names = sorted({row["method"] for row in result["rows"]})
    for axis, key, label in ((left, "parameters", "parameters"), (right, "macs", "multiply-accumulates")):
        for number, name in enumerate(names):
            rows = [row for row in result["rows"] if row["method"] == name]
            points = sorted([(row[key], 100 * row["accuracy"]) for row in rows])
            points.append((before[key], 100 * before["metrics"]["accuracy"]))
            points.sort()
            axis.plot(
                *zip(*points, strict=True), marker="o", markersize=3, linewidth=1.2, label=name,
                color=COLOURS[number % len(COLOURS)], linestyle="-" if number < len(COLOURS) else "--",
            )  # fmt: skip
        axis.axhline(100 * before["metrics"]["accuracy"], color="black", linewidth=0.6, linestyle=":")
        axis.set_xscale("log")
        axis.set_xlabel(label)
        axis.grid(True, which="both", linewidth=0.3, alpha=0.6)
    left.set_ylabel("accuracy, %")
    right.legend(frameon=False, fontsize=8, loc="lower right")
    figure.suptitle(f"{result['architecture']} on {result['task']}, no training" if not result["finetune_steps"] else (
        f"{result['architecture']} on {result['task']}, {result['finetune_steps']} training steps"
    ), fontsize=10)  # fmt: skip
    figure.savefig(path, dpi=200)
