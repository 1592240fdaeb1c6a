import contextlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weightgen.architecture import Architecture
from weightgen.checkpoint import Card, Checkpoint, Metric
from weightgen.errors import QueryError
from weightgen.zoo import Zoo
from weightgen.zoo.query import parse
from weightgen.zoo.statements import condition
from weightgen.zoo.tree import And, Comparison, Field, Or, fields

RECORDS = [
    # name, architecture, task, accuracy on test, on validation, optimizer, rate
    ("a", "weightgen/mlp?hidden=3", "digits", 0.90, 0.91, "adamw", 0.1),
    ("b", "weightgen/mlp?hidden=4", "digits", 0.80, 0.99, "sgd", 0.2),
    ("c", "weightgen/cnn?channels=2", "mnist", 0.90, None, "sgd", 0.3),
    ("d", "weightgen/cnn?channels=3", "mnist", None, None, None, None),
    ("o'hara", "weightgen/mlp?hidden=5", None, 0.10, None, None, 0.4),
]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    zoo = Zoo.create(tmp_path_factory.mktemp("query") / "zoo")
    checkpoints = []
    for name, recipe, task, test, validation, optimizer, rate in RECORDS:
        architecture = Architecture.parse(recipe)
        tensors = {each: torch.zeros(shape) for each, shape in architecture.parameter_shapes().items()}
        measured = (("test", test), ("validation", validation))
        metrics = tuple(Metric("accuracy", value, split, "d") for split, value in measured if value is not None)
        given = {"optimizer": optimizer, "learning_rate": rate, "schedule.warm": name == "a"}
        hyperparameters = {key: value for key, value in given.items() if value is not None}
        checkpoints.append(Checkpoint(architecture, tensors, Card(task, metrics, hyperparameters, split="train")))
    zoo.add(checkpoints, name=[record[0] for record in RECORDS])
    return zoo


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("", "abcdo"),
        ("task = 'mnist'", "cd"),
        ('task = "mnist"', "cd"),
        ("task != 'mnist'", "ab"),  # an unknown task is not another task
        ("task = 'digits' and metrics.accuracy >= 0.9", "a"),
        ("task = 'digits' AND metrics.validation.accuracy > .95", "b"),
        ("metrics.accuracy < 8.5e-1", "bo"),
        ("not metrics.accuracy < 0.85", "ac"),  # nor is an unknown accuracy a high one
        ("parameters <= 160", "cd"),
        ("family = 'weightgen/cnn'", "cd"),
        ("architecture = 'weightgen/mlp?hidden=4'", "b"),
        ("name = 'o''hara'", "o"),
        ('name = "o\'hara"', "o"),
        ("name in ('a', 'd', 'z')", "ad"),
        ("name not in ('a', 'd')", "bco"),
        ("hyperparameters.optimizer = 'sgd'", "bc"),
        ("hyperparameters.optimizer > 1", ""),  # a text is neither more nor less than a number
        ("hyperparameters.learning_rate in (0.1, 0.4, 'sgd')", "ao"),
        ("hyperparameters.schedule.warm = true", "a"),
        ("hyperparameters.learning_rate >= +0.3", "co"),
        ("task = 'mnist' or name = 'a'", "acd"),
        ("task = 'digits' and name = 'a' or task = 'mnist'", "acd"),
        ("task = 'digits' and (name = 'a' or task = 'mnist')", "a"),
        ("not (task = 'mnist' or name = 'a') and not not split = 'train'", "b"),
    ],
)
def test_what_holds(zoo, expression, names):
    query = zoo.query(expression)
    assert "".join(row.name[0] for row in query) == names
    assert query.count() == len(names)


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (["name"], "abcdo"),
        (["-name"], "odcba"),
        (["metrics.accuracy", "name"], "obacd"),
        (["-metrics.accuracy", "-name"], "cabod"),
        (["-parameters"], "obadc"),
        (["hyperparameters.learning_rate"], "abcod"),
        (["task", "-metrics.accuracy", "name"], "abcdo"),
    ],
)
def test_order(zoo, keys, names):
    query = zoo.query().order_by(*keys)
    assert "".join(row.name[0] for row in query) == names
    assert "".join(row.name[0] for row in query.limit(2)) == names[:2]
    assert (query.limit(2).count(), query.limit(0).count(), query.limit(9).count()) == (2, 0, 5)


def test_ties_are_in_the_order_of_ids(zoo):
    rows = list(zoo.query().order_by("split"))
    assert [row.id for row in rows] == sorted(row.id for row in rows)


@pytest.mark.parametrize(
    ("expression", "texts"),
    [
        ("tsk = 'a'", ["unknown field 'tsk'", "position 1 of", "task"]),
        ("task = 'a' and metric.accuracy > 1", ["'metric.accuracy'", "position 16"]),
        ("metrics.acuracy > 1", ["'metrics.acuracy'", "metrics.accuracy"]),
        ("metrics.train.accuracy > 1", ["'metrics.train.accuracy'", "metrics.validation.accuracy"]),
        ("metrics.dev.accuracy > 1", ["unknown field"]),
        ("hyperparameters.learning_rat > 1", ["hyperparameters.learning_rate"]),
        ("task", ["position 5", "the end", "="]),
        ("task =", ["position 7", "a text in quotes"]),
        ("task = digits", ["'digits'", "a text in quotes"]),
        ("task = 3", ["position 8", "a text in quotes for task"]),
        ("parameters = 'many'", ["a number for parameters"]),
        ("metrics.accuracy > 'high'", ["a number for metrics"]),
        ("task = 'a", ["position 8"]),
        ("task == 'a'", ["position 7"]),
        ("task = 'a' task = 'b'", ["position 12", "'and', 'or'"]),
        ("(task = 'a'", ["the end", "')'"]),
        ("task = 'a')", ["position 11"]),
        ("name in 'a'", ["'('"]),
        ("name in ()", ["position 10"]),
        ("name = 'a'; drop table models", ["position 11", "';"]),
        ("name = 'a' -- and so on", ["position 12"]),
        ("parameters > 3x", ["position 14"]),
        ("not " * 80 + "name = 'a'", ["nested too deeply"]),
        ("(" * 5000, ["nested too deeply"]),
        (" or ".join(["name = 'a'"] * 500), ["too long"]),
    ],
)
def test_errors_name_the_place_and_the_choices(zoo, expression, texts):
    with pytest.raises(QueryError) as error:
        zoo.query(expression).count()
    assert all(text in str(error.value) for text in texts), error.value


def test_unknown_sort_keys_are_named(zoo):
    with pytest.raises(QueryError, match="parameters"):
        zoo.query().order_by("-paramters")
    with pytest.raises(QueryError, match=r"metrics\.accuracy"):
        zoo.query().order_by("-metrics.acuracy").count()


def test_the_longest_queries_run(zoo):
    assert zoo.query(" or ".join(["name = 'a'"] * 400)).count() == 1
    assert zoo.query(f"name in ({', '.join(repr(str(number)) for number in range(5000))}, 'b')").count() == 1


def test_the_tree():
    accuracy, task = Field("metrics", "accuracy", "test", 0), Field("", "task", "", 26)
    tree = parse("metrics.accuracy > 0.9 or task = 'x'")
    assert tree == Or((Comparison(accuracy, ">", 0.9), Comparison(task, "=", "x")))
    assert parse("  ") == And(())
    assert list(fields(tree)) == [accuracy, task]


@given(st.text(max_size=30))
def test_any_text_is_a_query_or_a_named_error(text):
    with contextlib.suppress(QueryError):
        parse(text)


@given(st.text(max_size=20), st.sampled_from(["name", "hyperparameters.optimizer"]))
def test_values_are_bound_and_never_pasted(text, field):
    statement, values = condition(parse(f"{field} = '{text.replace(chr(39), chr(39) * 2)}'"))
    assert values[-1] == text
    assert statement == condition(parse(f"{field} = ''"))[0]
