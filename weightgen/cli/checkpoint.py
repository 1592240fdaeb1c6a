"""`weightgen evaluate` and `weightgen inspect`: what one network does and what it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from weightgen.cli.output import print_json, table


def evaluate(
    checkpoint: Path, *, task: str, split: Literal["train", "validation", "test"] = "test", json: bool = False
) -> None:
    """Measure a network on a task.

    Example: weightgen evaluate digits.safetensors --task digits

    Parameters
    ----------
    checkpoint
        A checkpoint file.
    task
        What to measure it on: digits, mnist, mnist/3v8, digits/even-odd, ….
    split
        The part of the data.
    json
        Print JSON.
    """
    from weightgen.checkpoint import Checkpoint
    from weightgen.tasks import evaluate as measure
    from weightgen.tasks import get_task

    result = measure(Checkpoint.load(checkpoint).build(), get_task(task), split)
    if json:
        return print_json(result)
    for name, value in result["metrics"].items():
        print(f"{name} {value:.4f} on {result['examples']:,} examples of {result['task']} ({result['split']})")


def inspect(checkpoint: Path, *, json: bool = False) -> None:
    """Show what a network is: architecture, tensors, the axes that belong together, card.

    Example: weightgen inspect digits.safetensors

    Parameters
    ----------
    checkpoint
        A checkpoint file; only its header is read.
    json
        Print JSON.
    """
    from weightgen.checkpoint import Checkpoint

    found = Checkpoint.load(checkpoint)
    tensors = [{"name": name, "shape": list(shape), "dtype": kind} for name, (kind, shape) in found.shapes.items()]
    structure = _structure({name: shape for name, (_, shape) in found.shapes.items()})
    what = {"architecture": str(found.architecture), "parameters": found.parameters}
    card = found.card.to_json()
    if json:
        return print_json({**what, "tensors": tensors, **structure, "card": card})
    print("\n".join([*_entries(what), *_entries(card)]))
    table("\ntensors", ["name", "shape", "dtype"], [list(tensor.values()) for tensor in tensors])
    table("\naxis groups", ["size", "members"], [_group(group) for group in structure["groups"]])
    print(f"\nfrozen: {', '.join(structure['frozen']) or 'none'}")


def _structure(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The axis groups, and the tensors that no group moves; an architecture without known groups is all frozen."""
    from weightgen.errors import ArchitectureError
    from weightgen.structure.axes import axis_groups

    try:
        groups = axis_groups(shapes)
    except ArchitectureError:
        groups = []
    moved = {member.tensor for group in groups for member in group.members}
    return {
        "groups": [
            {
                "size": group.size,
                "members": [
                    {"tensor": member.tensor, "axis": member.axis, "block": member.block} for member in group.members
                ],
            }
            for group in groups
        ],
        "frozen": [name for name in shapes if name not in moved],
    }


def _entries(values: Mapping[str, Any]) -> list[str]:
    """What is known, a line each; what is empty is left out."""
    lines = []
    for name, value in values.items():
        if name == "metrics":
            value = ", ".join(f"{metric['name']} {metric['value']:.4f} ({metric['split']})" for metric in value)
        elif isinstance(value, dict):
            value = ", ".join(f"{key} {item}" for key, item in value.items())
        elif isinstance(value, list):
            value = ", ".join(value)
        elif isinstance(value, int):
            value = f"{value:,}"
        if value:
            lines.append(f"{name.replace('_', ' '):16} {value}")
    return lines


def _group(group: Mapping[str, Any]) -> list[str]:
    members = (
        f"{member['tensor']}[{member['axis']}]" + (f" × {member['block']}" if member["block"] > 1 else "")
        for member in group["members"]
    )
    return [str(group["size"]), ", ".join(members)]
