"""A lineage as a file: Graphviz's language, or a picture."""

from pathlib import Path
from typing import TYPE_CHECKING

from weightgen.errors import OutputError
from weightgen.storage import atomic, write_text
from weightgen.zoo.lineage import Lineage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
"""Kinds of picture, and what is left out of them so that the same lineage gives the same bytes."""

MOST = 400
"""Networks that a picture can show; with more of them names cannot be read."""

WIDE, HIGH = 2.6, 0.45
"""Inches that a network takes."""


def draw(lineage: Lineage, path: Path) -> Path:
    """Writes the graph to a file; the ending `.png`, `.svg` or `.pdf` asks for a picture.

    Raises:
        OutputError: if the file cannot be written, or the lineage is too large for a picture.
    """
    kind = path.suffix.removeprefix(".").lower()
    if kind not in PICTURES:
        write_text(path, lineage.graphviz())
        return path
    keys = lineage.keys()
    if len(keys) > MOST:
        raise OutputError(
            "the lineage is too large for a picture", where=path, got=f"{len(keys):,} networks",
            expected=f"at most {MOST}", remedy="write a .dot file and draw it with Graphviz",
        )  # fmt: skip
    import matplotlib

    with atomic(path) as temporary, matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "weightgen"}):
        _picture(lineage, keys).savefig(temporary, format=kind, metadata=PICTURES[kind])
    return path


def places(lineage: Lineage) -> dict[str, tuple[int, int]]:
    """Column and row of each network: behind all that it was made from, and near to them."""
    keys = lineage.keys()
    column = dict.fromkeys(keys, 0)
    # As often as the longest chain can need; guessed edges may run in a circle.
    for _ in keys:
        for edge in lineage.edges:
            column[edge.child] = min(max(column[edge.child], column[edge.parent] + 1), len(keys) - 1)
    row: dict[str, int] = {}
    for number in sorted(set(column.values())):

        def nearness(key: str) -> float:
            above = [row[edge.parent] for edge in lineage.parents(key) if edge.parent in row]
            return sum(above) / len(above) if above else 0.0

        members = sorted((key for key in keys if column[key] == number), key=nearness)
        row.update({key: index for index, key in enumerate(members)})
    columns = {number: index for index, number in enumerate(sorted(set(column.values())))}
    return {key: (columns[column[key]], row[key]) for key in keys}


def _picture(lineage: Lineage, keys: list[str]) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    place = places(lineage)
    columns, rows = (1 + max(each[axis] for each in place.values()) for axis in (0, 1))
    figure = Figure(figsize=(WIDE * columns, HIGH * (rows + 1)), dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.25, -0.75))
    axes.axis("off")
    boxes = {}
    for key in keys:
        box = {"boxstyle": "round", "facecolor": "#ffe9b3" if key == lineage.id else "white", "edgecolor": "0.5"}
        name = lineage.names.get(key, key)
        text = name if len(name) <= 28 else f"{name[:13]}…{name[-13:]}"
        shown = axes.text(*place[key], text, size=8, ha="center", va="center", bbox=box, parse_math=False)
        boxes[key] = shown.get_bbox_patch()
    # How large a box is, at which an arrow ends, is known once its text has been set.
    figure.draw_without_rendering()
    for edge in lineage.edges:
        ends = {"patchA": boxes[edge.parent], "patchB": boxes[edge.child], "shrinkA": 1, "shrinkB": 1}
        style = {"arrowstyle": "->", "color": "0.5", "linestyle": "-" if edge.source == "card" else "--"}
        axes.annotate("", place[edge.child], place[edge.parent], arrowprops={**style, **ends})
        if edge.source != "card":
            (left, high), (right, low) = place[edge.parent], place[edge.child]
            box = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none"}
            middle = (left + right) / 2, (high + low) / 2
            axes.text(*middle, f"{edge.confidence:.2f}", size=7, color="0.4", ha="center", va="center", bbox=box)
    return figure
