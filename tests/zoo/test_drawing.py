import re

import numpy
import pytest

from weightgen.errors import OutputError
from weightgen.zoo import drawing
from weightgen.zoo.drawing import draw, places
from weightgen.zoo.lineage import Edge, Lineage

NAMES = {"b": "base", "l": "left", "r": "right", "m": "merged", "$x_1$": "price $5 & $6"}
EDGES = (
    Edge("l", "b", 1.0, "card"), Edge("r", "b", 0.87, "inferred"), Edge("m", "l", 1.0, "card"),
    Edge("m", "r", 1.0, "card"), Edge("$x_1$", "m", 1.0, "card"), Edge("b", "a network elsewhere", 1.0, "card"),
)  # fmt: skip
LINEAGE = Lineage("m", NAMES, EDGES)
SHOWN = {*NAMES.values(), "a network elsewhere"}


def test_children_stand_behind_their_parents():
    place = places(LINEAGE)
    assert set(place) == {*NAMES, "a network elsewhere"} and len(set(place.values())) == 6
    assert all(place[edge.parent][0] < place[edge.child][0] for edge in EDGES)
    circle = Lineage("a", {}, (Edge("a", "b", 0.5, "inferred"), Edge("b", "a", 0.5, "inferred")))
    assert set(places(circle)) == {"a", "b"}


def test_a_picture_names_every_network_and_the_confidence_of_a_guess(tmp_path):
    text = draw(LINEAGE, tmp_path / "graph.svg").read_text()
    shown = set(re.findall(r">([^<>\n]+)</text>", text))
    assert {one.replace("&amp;", "&") for one in shown} == {*SHOWN, "0.87"}
    assert draw(LINEAGE, tmp_path / "again.svg").read_text() == text


def test_a_png_shows_boxes_and_arrows(tmp_path):
    from matplotlib.image import imread

    pixels = imread(draw(LINEAGE, tmp_path / "graph.png"))[..., :3]
    dark = pixels.min(axis=2) < 0.3
    place = places(LINEAGE)
    columns = 1 + max(column for column, _ in place.values())
    rows = 1 + max(row for _, row in place.values())
    high, wide = dark.shape
    for column, row in place.values():
        left, top = int(column * wide / columns), int((row + 0.25) * high / rows)
        assert dark[top : top + high // rows // 2, left : left + wide // columns].any()
    # The network that was asked for stands out.
    assert (numpy.abs(pixels - numpy.array([255, 233, 179]) / 255).max(axis=2) < 0.01).any()
    assert draw(Lineage("b", NAMES, ()), tmp_path / "alone.png").stat().st_size > 500


def test_what_cannot_be_drawn_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "MOST", 3)
    with pytest.raises(OutputError, match="too large for a picture; .*; got 6 networks"):
        draw(LINEAGE, tmp_path / "graph.png")
    assert draw(LINEAGE, tmp_path / "graph.dot").read_text().startswith("digraph lineage {")
    assert [path.name for path in tmp_path.iterdir()] == ["graph.dot"]
