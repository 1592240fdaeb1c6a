import json

import pytest
import torch

from weightgen.architecture import Architecture
from weightgen.checkpoint import Card, Checkpoint
from weightgen.cli.zoo import app
from weightgen.zoo import Zoo

SHAPES = {"one": (20, 10), "norm": (20,), "two": (20, 20), "head": (20, 4)}
FAMILIES, CHILDREN = 4, 3


def checkpoint(tensors, **card) -> Checkpoint:
    return Checkpoint(
        Architecture.unknown({name: tuple(one.shape) for name, one in tensors.items()}), tensors, Card(**card)
    )


def tuned(tensors, amount: float, random: torch.Generator, classes: int = 4) -> dict:
    """A step in a random direction, with a new head for another number of classes."""
    moved = {name: one + amount * torch.randn(one.shape, generator=random) for name, one in tensors.items()}
    if classes != 4:
        moved["head"] = torch.randn((20, classes), generator=random)
    return moved


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """Four parents with three children each, one of them with a new head and one with a child of its own; strangers."""
    zoo = Zoo.create(tmp_path_factory.mktemp("inference") / "zoo")
    random = torch.Generator().manual_seed(0)
    truth, made, names = set(), [], []

    def add(tensors, name, parent=None, **card):
        made.append(checkpoint(tensors, **card))
        names.append(name)
        if parent is not None:
            truth.add((made[-1].id, parent))
        return made[-1].id

    for number in range(FAMILIES + 2):
        base = {name: torch.randn(shape, generator=random) for name, shape in SHAPES.items()}
        base["norm"] = 1 + base["norm"] / 100
        parent = add(base, f"parent-{number}")
        for child in range(CHILDREN if number < FAMILIES else 0):
            weights = tuned(base, 0.2, random, 7 if child == 2 else 4)
            key = add(weights, f"child-{number}-{child}", parent)
            if child == 1:
                add(tuned(weights, 0.02, random), f"grandchild-{number}", key)
    # Children come first, so that the order in which networks were added tells nothing.
    zoo.add(made[::-1], name=names[::-1])
    return zoo, truth


def test_families_are_found_and_strangers_left_alone(family):
    zoo, truth = family
    edges = zoo.infer_lineage()
    assert {(edge.child, edge.parent) for edge in edges} == truth
    assert all(edge.source == "inferred" and 0.5 < edge.confidence <= 1 for edge in edges)
    assert zoo.query().descendants_of("parent-0").count() == 0, "guesses are kept only when that is asked for"


def test_guesses_are_kept_apart_from_what_was_declared(family, tmp_path):
    source, truth = family
    zoo = Zoo.create(tmp_path / "zoo")
    rows = list(source.query("name glob 'child-0-*' or name = 'grandchild-0' or name glob 'parent-*'"))
    parent = source.row("parent-0").id
    made = [row.load().replace_card(parents=(parent,) if row.name == "child-0-0" else ()) for row in rows]
    zoo.add(made, name=[row.name for row in rows])
    edges = zoo.infer_lineage(save=True)
    assert {edge.child for edge in edges} == {zoo.row(name).id for name in ("child-0-1", "child-0-2", "grandchild-0")}
    assert [row.name for row in zoo.query().descendants_of("parent-0")] == ["child-0-0"]
    assert zoo.query("parent is known").count() == 1
    lines = "\n".join(zoo.lineage("parent-0", inferred=True).lines())
    assert lines.count("inferred") == 3 and "    grandchild-0" in lines
    assert zoo.infer_lineage(save=True) == edges
    assert zoo.catalogue.rows("SELECT count(*) FROM lineage") == [(4,)]


def test_too_few_to_compare(tmp_path):
    zoo = Zoo.create(tmp_path / "zoo")
    assert zoo.infer_lineage() == []
    base = {name: torch.randn(shape, generator=torch.Generator().manual_seed(1)) for name, shape in SHAPES.items()}
    zoo.add([checkpoint(base)], name=["a"])
    assert zoo.infer_lineage() == []
    longer = {name: one * 1.05 for name, one in base.items()}
    zoo.add([checkpoint(longer)], name=["b"])
    (edge,) = zoo.infer_lineage()
    assert (edge.child, edge.parent) == (zoo.row("b").id, zoo.row("a").id)
    zoo.add([checkpoint({"one": base["one"] * float("nan")}), checkpoint({"n": torch.zeros(3, dtype=torch.int64)})])
    assert len(zoo.infer_lineage()) == 1


def test_the_command(family, capsys):
    zoo, truth = family
    app(["lineage", "--infer", "--zoo", str(zoo.path), "--json"], result_action="return_value")
    found = json.loads(capsys.readouterr().out)
    assert {(edge["child"], edge["parent"]) for edge in found} == truth
    app(["lineage", "--infer", "--zoo", str(zoo.path), "--where", "name glob '*-1*'"], result_action="return_value")
    assert "child-1-0" in capsys.readouterr().out
