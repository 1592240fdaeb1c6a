"""What can be done with the networks of a query: pages, facets, tables, neighbours, lineage, splits, snapshots."""

import os
import sqlite3

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weightgen.architecture import Architecture
from weightgen.checkpoint import Card, Checkpoint, Metric
from weightgen.errors import DuplicateNameError, OutputError, QueryError, UnknownNameError
from weightgen.shelf import shelf
from weightgen.zoo import F, Zoo, has_tensor, matches, neighbours, result, schema
from weightgen.zoo.neighbours import place_of
from weightgen.zoo.spaces import distances, least
from weightgen.zoo.splitting import split_ids

SHAPES = {"conv.weight": (4, 3, 2, 2), "head": (5,)}


def network(seed: int, shapes=SHAPES, **card) -> Checkpoint:
    random = torch.Generator().manual_seed(seed)
    tensors = {name: torch.randn(shape, generator=random) * (1 + seed) for name, shape in shapes.items()}
    return Checkpoint(Architecture.unknown(shapes), tensors, Card(**card))


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """Twelve networks of four runs; the accuracy of every third is unknown, that of one is on unstated data."""
    zoo = Zoo.create(tmp_path_factory.mktemp("result") / "zoo")
    first = network(0, run="run-0", task="a", hyperparameters={"lr": 0.1, "note": "warm start"}, tags=("x",))
    made = [first]
    for seed in range(1, 12):
        figures = () if seed % 3 == 0 else (Metric("accuracy", seed / 12, "unstated" if seed == 5 else "test", "d"),)
        made.append(
            network(
                seed,
                {**SHAPES, "extra": (seed,)} if seed == 7 else SHAPES,
                run=f"run-{seed % 4}",
                task="ab"[seed % 2],
                metrics=figures,
                hyperparameters={"lr": seed / 10, "kind": seed if seed < 6 else str(seed)},
                tags=("x", "y") if seed % 2 else (),
                parents=(made[-1].id,) if seed in (4, 5) else ("first",) if seed == 8 else (),
            )
        )
    zoo.add(made, name=["first", *(f"net-{seed}" for seed in range(1, 12))])
    return zoo


def names(query) -> list[str]:
    return [row.name.removeprefix("net-") for row in query]


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("lr between 0.3 and 0.5", ["3", "4", "5"]),
        ("lr not between 0.2 and 1.05", ["first", "1", "11"]),
        ("note is known", ["first"]),
        ("note is unknown and lr > 0.9", ["10", "11"]),
        ("kind is not known", ["first"]),
        ("kind in (3, '7')", ["3", "7"]),
        ("name like 'NET-1%'", ["1", "10", "11"]),
        ("name not like 'net-%'", ["first"]),
        ("name glob 'net-?' and lr > 0.75", ["8", "9"]),
        ("name glob 'NET*'", []),
        ("tag = 'y' and lr < 0.4", ["1", "3"]),
        ("not tag = 'x' and lr < 0.7", ["2", "4", "6"]),
        ("tag in ('x', 'z') and tag != 'x'", ["1", "3", "5", "7", "9", "11"]),
        ("tag is unknown and lr > 0.7", ["8", "10"]),
        ("metrics.accuracy > 0.4 and metrics.accuracy < 0.6", ["5", "7"]),
        ("metrics.unstated.accuracy is known", ["5"]),
        ("not metrics.accuracy > 0.2", ["1", "2"]),
        ("metrics.accuracy is unknown", ["first", "3", "6", "9"]),
        ("parent = 'first'", ["8"]),
        ("tensors = 3", ["7"]),
        ("has tensor 'extra'", ["7"]),
        ("has tensor like 'ex%' with shape (7)", ["7"]),
        ("has tensor like 'ex%' with shape (8)", []),
        ("has tensor glob '*.weight' with shape (4, 3, *, *) and lr > 1", ["11"]),
        ("has tensor 'conv.weight' with shape (4, 3, *)", []),
        ("has tensor 'extra' with shape (*)", ["7"]),
        ("not has tensor 'extra' and lr between 0.6 and 0.8", ["6", "8"]),
        ("matches 'warm START'", ["first"]),
        ("matches 'wa*' or matches 'net 7'", ["first", "7"]),
        ("matches 'warm cold'", []),
        ("zeros = 0 and non_finite = 0 and lr = 1.1", ["11"]),
        ("format = 'weightgen' and parameters = 53 and lr = 0.2", ["2"]),
    ],
)
def test_what_holds(zoo, expression, found, monkeypatch):
    query = zoo.query(expression)
    assert names(query) == found
    assert query.count() == len(found)
    assert names(zoo.query(f"not not ({expression})")) == found
    monkeypatch.setattr(result, "RARE", 0)
    assert names(query) == found, "whether lists are made or not"


@pytest.mark.parametrize(
    ("node", "text"),
    [
        ((F.task == "a") & (F.metrics.accuracy > 0.2), "task = 'a' and metrics.accuracy > 0.2"),
        (F.lr.between(0.3, 0.5) | ~(F.lr <= 1), "lr between 0.3 and 0.5 or not lr <= 1"),
        (F.hyperparameters.kind.isin([3, "7"]), "hyperparameters.kind in (3, '7')"),
        (
            F["name"].like("net-1%") & F.metrics.unstated.accuracy.is_known(),
            "name like 'net-1%' and metrics.unstated.accuracy is known",
        ),
        (has_tensor("ex%", (None,)) & matches("net"), "has tensor like 'ex%' with shape (*) and matches 'net'"),
        ((F.tag != "x") & F.name.glob("net-?"), "tag != 'x' and name glob 'net-?'"),
    ],
)
def test_python_says_the_same_as_text(zoo, node, text):
    assert names(zoo.query(node)) == names(zoo.query(text))


def test_python_values_of_the_wrong_kind():
    for make in (lambda: F.task == 3, lambda: F.parameters > "x", lambda: F.lr == None, lambda: F.metrics.dev.x > 1):  # noqa: E711
        with pytest.raises(QueryError):
            make()


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("lr between 1", "'and'"), ("lr like 3", "a text in quotes"), ("lr is", "'known'"), ("has x", "'tensor'"),
        ("has tensor 'a' with shape 3", r"'\('"), ("has tensor 'a' with shape (x)", r"a size or \*"),
        ("matches words", "a text in quotes"), ("lr not = 3", "between"), ("tag = 3", "a text in quotes for tag"),
        ("nothing = 3", "unknown field 'nothing'"), ("lrr = 3", "near to it such as: lr"), ("name = '\udcff'", "UTF-8"),
    ],
)  # fmt: skip
def test_errors_name_the_place(zoo, expression, text):
    with pytest.raises(QueryError, match=text):
        zoo.query(expression).count()


@given(st.text(max_size=30))
def test_any_words_can_be_searched(zoo, words):
    if not any("\ud800" <= sign <= "\udfff" for sign in words):
        assert zoo.query(matches(words)).count() >= 0


@pytest.mark.parametrize(
    "keys",
    [
        [],
        ["lr"],
        ["-lr"],
        ["task", "-metrics.accuracy"],
        ["-metrics.accuracy"],
        ["metrics.accuracy"],
        ["tag", "kind"],
        ["-parameters"],
    ],
)
@pytest.mark.parametrize("size", [1, 5, 12, 20])
def test_pages_hold_every_network_once_in_order(zoo, keys, size):
    query = zoo.query("lr > 0").order_by(*keys)
    mark, found, pages = None, [], 0
    while pages == 0 or mark:
        page = query.page(size, mark)
        found += [row.name for row in page.rows]
        mark, pages = page.next, pages + 1
    assert found == [row.name for row in query] and pages == -(-12 // size)


def test_a_page_moves_not_when_networks_are_added(tmp_path):
    zoo = Zoo.create(tmp_path / "zoo")
    zoo.add([network(seed, hyperparameters={"lr": seed}) for seed in (2, 4, 6)], name=["2", "4", "6"])
    query = zoo.query().order_by("lr")
    first = query.page(2)
    zoo.add([network(seed, hyperparameters={"lr": seed}) for seed in (1, 5)], name=["1", "5"])
    assert [row.name for row in query.page(9, first.next).rows] == ["5", "6"]
    with pytest.raises(QueryError, match="mark"):
        query.page(2, "nonsense")
    with pytest.raises(QueryError, match="another order"):
        zoo.query().page(2, first.next)


@pytest.mark.parametrize(
    "expression", ["lr > 0", "metrics.accuracy > 0.3 and tag = 'x'", "metrics.accuracy between 0.1 and 0.6"]
)
def test_the_first_few_by_a_metric_are_found_by_its_index(zoo, expression, monkeypatch):
    monkeypatch.setattr(result, "WINDOWS", (2, 6))
    monkeypatch.setattr(result, "RARE", 0)
    for test_split in (True, False):
        query = zoo.query(expression if test_split else f"({expression}) and name != 'net-5'")
        for key in ("metrics.accuracy", "-metrics.accuracy"):
            ordered = query.order_by(key)
            for number in (0, 2, 3, 7, 9, 12):
                assert names(ordered.limit(number)) == names(ordered)[:number]


def test_the_first_figure_of_several_data_sets_counts_in_the_index_too(tmp_path, monkeypatch):
    monkeypatch.setattr(result, "WINDOWS", (9,))
    monkeypatch.setattr(result, "RARE", 0)
    zoo = Zoo.create(tmp_path / "zoo")
    for seed in range(6):
        figures = (Metric("accuracy", seed / 10, "test", "one"), Metric("accuracy", 1 - seed / 10, "test", "two"))
        zoo.add([network(seed, metrics=figures)], name=[str(seed)])
    query = zoo.query("metrics.accuracy < 0.45").order_by("-metrics.accuracy").limit(3)
    assert query._by_metric() is not None and names(query) == ["4", "3", "2"]


def test_facets(zoo):
    found = zoo.query("lr > 0.3").facets("task", "tag", "metrics.accuracy", limit=3)
    assert found["task"] == {"a": 4, "b": 4} and found["tag"] == {"x": 4, "y": 4}
    assert next(iter(found["metrics.accuracy"].items())) == (None, 2)
    with pytest.raises(QueryError, match="tsk"):
        zoo.query().facets("tsk")


def test_explain_shows_sql_and_plan(zoo):
    text = zoo.query("metrics.accuracy > 0.5 and task = 'a'").order_by("-lr").limit(3).explain()
    assert "SELECT number FROM models" in text and "metrics_by_value" in text and "'a'" in text


def test_tables(zoo):
    frame = zoo.query("lr > 0.5").order_by("lr").to_pandas()
    assert list(frame["name"]) == [f"net-{seed}" for seed in range(6, 12)]
    assert frame["metrics.accuracy"].isna().sum() == 2 and frame["hyperparameters.lr"].max() == 1.1
    table = zoo.query().to_arrow()
    assert table.num_rows == 12 and table["hyperparameters.kind"].to_pylist()[1:3] == ["1", "2"]


def test_neighbours(zoo):
    found = zoo.query("lr > 0.15").nearest("net-6", 4)
    places = {row.name: place_of(row.load()) for row in zoo}
    distances = {name: float(numpy.linalg.norm(place - places["net-6"])) for name, place in places.items()}
    expected = sorted(
        (name for name in distances if name not in ("net-6", "first", "net-1")), key=lambda name: distances[name]
    )
    assert [one.row.name for one in found] == expected[:4]
    assert [one.distance for one in found] == pytest.approx([distances[name] for name in expected[:4]], rel=1e-5)
    twin = zoo.query().nearest(network(3), 1)[0]
    assert (twin.row.name, twin.distance) == ("net-3", 0)
    assert zoo.query("name = 'nobody'").nearest("net-6") == []
    with pytest.raises(UnknownNameError, match="statistics-v1"):
        zoo.query().nearest("net-6", space="statistics")


@given(st.integers(1, 40), st.integers(0, 12), st.integers(0, 1000))
def test_the_least_distances_are_exact(number, k, seed):
    random = numpy.random.default_rng(seed)
    matrix = random.integers(0, 3, (number, 4)).astype(numpy.float32)
    rows = numpy.flatnonzero(random.random(number) < 0.7)
    every = numpy.square(matrix[rows] - matrix[0]).sum(1)
    squares = distances(matrix, rows, matrix[0])
    assert numpy.array_equal(squares, every)
    assert least(squares, k).tolist() == numpy.lexsort((rows, every))[:k].tolist()


@pytest.mark.parametrize("expression", ["lr > 0.15", "tag = 'x'", "", "name = 'nobody'", "has tensor 'extra'"])
def test_neighbours_are_the_same_whether_the_filter_or_the_distance_comes_first(zoo, expression, monkeypatch):
    filtered = zoo.query(expression).nearest("net-6", 3)
    for rare in (0, 10_000):
        monkeypatch.setattr(result, "RARE", rare)
        assert zoo.query(expression).nearest("net-6", 3) == filtered
    monkeypatch.setattr(result, "RARE", 0)
    monkeypatch.setattr(neighbours, "WIDER", ())
    assert zoo.query(expression).nearest("net-6", 3) == filtered


def test_lineage(zoo):
    assert names(zoo.query().descendants_of("net-3")) == ["4", "5"]
    assert names(zoo.query("lr > 0.45").descendants_of("net-3")) == ["5"]
    assert names(zoo.query().ancestors_of("net-5")) == ["3", "4"]
    assert names(zoo.query().descendants_of("first")) == ["8"] and names(zoo.query().ancestors_of("first")) == []
    lineage = zoo.lineage("net-4")
    assert list(lineage.lines()) == ["net-3", "  net-4  ←", "    net-5"]
    assert lineage.graphviz().count("->") == 2


def test_a_circle_of_parents_ends(tmp_path):
    zoo = Zoo.create(tmp_path / "zoo")
    zoo.add([network(0, parents=("b",)), network(1, parents=("a",))], name=["a", "b"])
    assert names(zoo.query().descendants_of("a")) == ["b"] and names(zoo.query().ancestors_of("a")) == ["b"]
    assert len(list(zoo.lineage("a").lines())) >= 2


def test_a_split_does_not_leak(zoo):
    parts = zoo.query().split(ratios=(0.5, 0.25, 0.25), seed=3)
    runs = {name: {row.run for row in query} for name, query in parts.items()}
    assert sum(query.count() for query in parts.values()) == 12
    assert not runs["train"] & runs["test"] and not runs["train"] & runs["validation"]
    assert names(parts["test"]) == names(zoo.query().split(ratios=(0.5, 0.25, 0.25), seed=3)["test"])
    with pytest.raises(QueryError, match="ratios"):
        zoo.query().split(ratios=(0.5, 0.5))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12), st.integers(0, 5))
def test_what_an_edge_joins_stays_together(edges, seed):
    rows = [(f"{key:02d}", key % 5) for key in range(10)]
    joined = [(f"{child:02d}", f"{parent:02d}") for child, parent in edges]
    parts = split_ids(rows, joined, (0.6, 0.2, 0.2), seed)
    side = {key: name for name, ids in parts.items() for key in ids}
    assert len(side) == 10 and all(side[child] == side[parent] for child, parent in joined)
    assert all(side[f"{key:02d}"] == side[f"{key % 5:02d}"] for key in range(10))
    assert parts == split_ids(rows[::-1], joined[::-1], (0.6, 0.2, 0.2), seed)


def test_a_frozen_query_stays_as_it_was(tmp_path):
    zoo = Zoo.create(tmp_path / "zoo")
    zoo.add([network(0, task="a"), network(1, task="a")], name=["0", "1"])
    digest = zoo.query("task = 'a'").freeze("mine")
    zoo.add([network(2, task="a")], name=["2"])
    assert names(zoo.snapshot("mine")) == ["0", "1"]
    assert zoo.snapshot("mine").freeze("mine") == digest
    with pytest.raises(DuplicateNameError, match="mine"):
        zoo.query("task = 'a'").freeze("mine")
    with pytest.raises(UnknownNameError, match="mine"):
        zoo.snapshot("min")


OLD = (
    "INSERT INTO models (number, id, name, architecture, family, parameters, task, origin, run, split, card, blob)"
    " SELECT number, id, name, architecture, family, parameters, task, origin, run, split, card, blob FROM new.models"
)


@pytest.fixture
def old(zoo, tmp_path):
    """The zoo as the first schema had it."""
    folder = tmp_path / "old"
    folder.mkdir()
    os.symlink(zoo.path / "blobs", folder / "blobs")
    with sqlite3.connect(folder / "catalogue.db") as connection:
        connection.executescript(schema.FIRST)
        connection.execute("PRAGMA application_id = 2003258929")
        connection.execute("PRAGMA user_version = 1")
        connection.execute("ATTACH ? AS new", [str(zoo.path / "catalogue.db")])
        connection.execute("INSERT INTO blobs SELECT * FROM new.blobs")
        connection.execute(OLD)
        tensors = "model, position, name, kind, shape, norm, digest"
        connection.execute(f"INSERT INTO tensors SELECT {tensors} FROM new.tensors")
        for table in ("metrics", "hyperparameters", "tags", "lineage"):
            connection.execute(f"INSERT INTO {table} SELECT * FROM new.{table}")
        connection.commit()
    connection.close()
    return folder


def test_an_old_catalogue_is_read_as_it_is_and_migrated_by_the_first_write(zoo, old):
    before = (old / "catalogue.db").read_bytes()
    opened = Zoo(old)
    for expression in ("matches 'warm start'", "non_finite is unknown", "has tensor 'extra'", "metrics.accuracy > 0.4"):
        assert names(opened.query(expression)), expression
    assert [one.row.name for one in opened.query().nearest("net-6", 3)] == [
        one.row.name for one in zoo.query().nearest("net-6", 3)
    ]
    opened.catalogue.close()
    assert (old / "catalogue.db").read_bytes() == before and sorted(os.listdir(old)) == ["blobs", "catalogue.db"]
    # A write that fails leaves it old, and readable.
    opened = Zoo(old)
    with pytest.raises(RuntimeError), opened.catalogue.transaction():
        raise RuntimeError
    assert opened.query("matches 'warm'").count() == 1
    opened.add([network(50, task="new")], name=["new"])
    assert opened.catalogue.rows("PRAGMA user_version") == [(schema.VERSION,)]
    assert opened.query("matches 'new'").count() == 1 and opened.query("matches 'warm'").count() == 1
    assert Zoo(old).query("non_finite = 0").count() == 1
    assert [one.row.name for one in Zoo(old).query().nearest("net-6", 2)] == [
        one.row.name for one in zoo.query().nearest("net-6", 2)
    ]


def test_a_fresh_and_a_migrated_catalogue_have_the_same_tables(old, tmp_path):
    opened = Zoo(old)
    opened.add([network(60)])
    fresh = Zoo.create(tmp_path / "fresh")
    statement = "SELECT type, name FROM sqlite_master ORDER BY name"
    assert opened.catalogue.rows(statement) == fresh.catalogue.rows(statement)


def test_the_starter_zoo_is_not_written_by_questions():
    path = shelf("zoo", "starter")
    before = (path / "catalogue.db").read_bytes()
    zoo = Zoo.open("starter")
    assert zoo.query("matches 'mnist' and metrics.accuracy > 0.9 and split = 'train'").count() > 10
    with pytest.raises(OutputError), zoo.catalogue.transaction():
        raise OutputError("stopped before anything was kept")
    zoo.catalogue.close()
    assert (path / "catalogue.db").read_bytes() == before
