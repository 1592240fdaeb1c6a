"""`weightgen inspect`: what a network is."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightgen.cli.output import print_json, table

if TYPE_CHECKING:
    from weightgen.architecture import Architecture
    from weightgen.storage import Shapes
    from weightgen.structure.axes import Member

SHOWN = 6
"""Of a long list so many entries are shown; `--json` has them all."""


def inspect(checkpoint: str, *, part: str | None = None, json: bool = False) -> None:
    """Show what a network is: architecture, tensors, the axes that belong together, card.

    Example: weightgen inspect digits.safetensors

    Parameters
    ----------
    checkpoint
        A file or folder of any format that is read, whose values stay on disk; or a recipe such as timm/resnet18.
    part
        Which of the networks of a file that holds several.
    json
        Print JSON.
    """
    architecture, parameters, shapes, card = _read(checkpoint, part)
    what = {"architecture": str(architecture), "parameters": parameters}
    tensors = [{"name": name, "shape": list(shape), "dtype": kind} for name, (kind, shape) in shapes.items()]
    structure = _structure(architecture, shapes)
    if json:
        return print_json({**what, "tensors": tensors, **structure, "card": card})
    print("\n".join([*_entries(what), *_entries(card)]))
    table("\ntensors", ["name", "shape", "dtype"], [list(tensor.values()) for tensor in tensors])
    table("\naxis groups", ["groups", "size", "members"], _group_rows(structure["groups"]))
    table("\nfrozen", ["axes", "reason", "which"], _frozen_rows(structure["frozen"]))


def _read(checkpoint: str, part: str | None) -> "tuple[Architecture, int, Shapes, dict[str, Any]]":
    """Architecture, number of parameters, kinds and shapes of the tensors, and card of a file or of a recipe."""
    from weightgen.architecture import Architecture
    from weightgen.checkpoint import Card
    from weightgen.formats.opening import RECIPES, open_network

    if checkpoint.startswith(RECIPES) and not Path(checkpoint).exists():
        architecture = Architecture.parse(checkpoint)
        return architecture, architecture.parameters, architecture.tensors(), Card().to_json()
    found = open_network(checkpoint, part)
    return found.architecture, found.parameters, found.shapes, found.card.to_json()


def _structure(architecture: "Architecture", shapes: "Shapes") -> dict[str, Any]:
    """The axis groups and the frozen axes; all are frozen in a network that cannot be traced."""
    from weightgen.errors import ArchitectureError

    try:
        graph = architecture.axes()
    except ArchitectureError as error:
        frozen = {
            (name, axis): str(error)
            for name, (_, shape) in shapes.items()
            for axis, size in enumerate(shape)
            if size > 1
        }
        return {"groups": [], "frozen": _frozen(frozen)}
    groups = [
        {"size": group.size, "members": [_member(member) for member in group.members], "kin": group.kin}
        for group in graph.groups
    ]
    return {"groups": groups, "frozen": _frozen(graph.frozen)}


def _member(member: "Member") -> dict[str, Any]:
    """A member as JSON: `indices` of each unit where they are no blocks, `within` where it is a part of the tensor."""
    entries: dict[str, Any] = {"tensor": member.tensor, "axis": member.axis, "block": member.block}
    if member.table is not None:
        entries["indices"] = [list(unit) for unit in member.table.units]
    if member.within is not None:
        entries["within"] = dict(zip(("axis", "start", "stop"), member.within, strict=True))
    return entries


def _frozen(reasons: Mapping[tuple[str, int], str]) -> list[dict[str, Any]]:
    return [{"tensor": tensor, "axis": axis, "reason": reason} for (tensor, axis), reason in reasons.items()]


def _group_rows(groups: Sequence[Mapping[str, Any]]) -> list[list[object]]:
    """A row for each group, or for all groups of one kind."""
    alike: dict[object, list[Mapping[str, Any]]] = defaultdict(list)
    for number, group in enumerate(groups):
        alike[("single", number) if group["kin"] is None else group["kin"]].append(group)
    return [
        [len(kin), kin[0]["size"], _few([_place(member) for member in kin[0]["members"]])] for kin in alike.values()
    ]


def _frozen_rows(frozen: Sequence[Mapping[str, Any]]) -> list[list[object]]:
    by_reason: dict[str, list[str]] = defaultdict(list)
    for axis in frozen:
        by_reason[axis["reason"]].append(f"{axis['tensor']}[{axis['axis']}]")
    return [[len(axes), reason, _few(axes)] for reason, axes in by_reason.items()]


def _place(member: Mapping[str, Any]) -> str:
    place = f"{member['tensor']}[{member['axis']}]"
    if "indices" in member:
        first = member["indices"][0]
        place += f" from {first[0]}" if len(first) == 1 else f" {len(first)} each from {first[0]}"
    elif member["block"] > 1:
        place += f" × {member['block']}"
    if "within" in member:
        place += f" within [{member['within']['axis']}] {member['within']['start']}…{member['within']['stop'] - 1}"
    return place


def _few(items: Sequence[str]) -> str:
    more = len(items) - SHOWN
    return ", ".join(items[:SHOWN]) + (f", … and {more} more" if more > 0 else "")


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
