import dataclasses
import os

import pytest

from weightgen.checkpoint import Checkpoint
from weightgen.errors import MissingDataError, RecipeError
from weightgen.tasks import evaluate, get_task
from weightgen.training import population
from weightgen.zoo import Zoo
from weightgen.zoo.recipe import read_recipe, train_recipe

RECIPE = """
name = "pico"

[[population]]
task = "digits"
architecture = "weightgen/mlp?hidden=4"
networks = 10
first_seed = 5
learning_rate = [1e-2, 3e-2]
weight_decay = [1e-5, 1e-3]
steps = 40
batch = 16
dtype = "float16"

[[population]]
task = "digits/3v8"
architecture = "weightgen/cnn?channels=2,3&activation=tanh"
networks = 2
steps = 10
learning_rate = 0.01
weight_decay = 0
split = [0.5, 0.0, 0.5]
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "pico.toml"
    path.write_text(RECIPE)
    return path


def test_a_recipe_is_read(recipe):
    first, second = read_recipe(recipe).populations
    assert str(first.architecture) == "weightgen/mlp?hidden=4"
    assert str(second.architecture) == "weightgen/cnn?activation=tanh&channels=2,3&classes=2"
    assert (first.label, second.label) == ("digits-mlp-4", "digits-3v8-cnn-2-3-tanh")
    assert [first.splits().count(split) for split in ("train", "validation", "test")] == [8, 1, 1]
    assert sorted(second.splits()) == ["test", "train"]
    rates = [run.learning_rate for run in first.runs()]
    assert len(set(rates)) == 10 and all(1e-2 <= rate <= 3e-2 for rate in rates)
    assert all(1e-5 <= run.weight_decay <= 1e-3 for run in first.runs())
    assert {(run.learning_rate, run.weight_decay) for run in second.runs()} == {(0.01, 0.0)}
    assert read_recipe(recipe) == read_recipe(recipe)


def test_a_recipe_is_trained(recipe, tmp_path):
    calls = []
    zoo = train_recipe(recipe, tmp_path / "zoo", lambda done, total, text: calls.append((done, total)))
    assert calls == [(step, 50) for step in range(1, 51)]
    assert len(zoo) == 12
    row = zoo.row("digits-mlp-4-s007")
    card = row.card
    assert (card.task, card.origin, card.run) == ("digits", "trained", "digits/weightgen/mlp?hidden=4/seed-7")
    assert card.split in ("train", "validation", "test")
    assert card.preprocessing == dataclasses.asdict(get_task("digits").preprocessing)
    assert card.hyperparameters["steps"] == 40 and card.hyperparameters["seed"] == 7
    assert set(card.made_with) == {"command", "recipe", "population", "code", "seed", "torch"}
    assert card.metrics[0].digest == get_task("digits").digest
    checkpoint = row.load()
    assert checkpoint.shapes["head.bias"] == ("float16", (10,))
    for split in ("test", "validation"):
        measured = evaluate(checkpoint.build(), get_task("digits"), split)
        assert measured["metrics"]["accuracy"] == card.metric("accuracy", split)
    digest = zoo.digest
    zoo.catalogue.close()
    assert sorted(os.listdir(zoo.path)) == ["README.md", "blobs", "catalogue.db", "embeddings", "recipe.toml"]
    assert (zoo.path / "recipe.toml").read_text() == RECIPE
    readme = (zoo.path / "README.md").read_text()
    assert "12 trained networks" in readme and "| 8 / 1 / 1 |" in readme and digest in readme


def test_the_same_recipe_gives_the_same_zoo(recipe, tmp_path):
    zoos = [train_recipe(recipe, tmp_path / name) for name in ("one", "two")]
    assert zoos[0].digest == zoos[1].digest
    assert len({(zoo.path / "README.md").read_text() for zoo in zoos}) == 1


def test_an_interrupted_training_goes_on_and_ends_the_same(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(population, "STATE_EVERY", 10)
    whole = train_recipe(recipe, tmp_path / "whole")

    def stop(done: int, total: int, text: str) -> None:
        if done == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_recipe(recipe, tmp_path / "zoo", stop)
    assert len(Zoo(tmp_path / "zoo")) == 0
    calls = []
    zoo = train_recipe(recipe, tmp_path / "zoo", lambda done, total, text: calls.append(done))
    assert calls == list(range(21, 51))
    assert zoo.digest == whole.digest
    assert not (zoo.path / ".state").exists()
    train_recipe(recipe, tmp_path / "zoo", lambda *_: pytest.fail("trained again"))


def test_a_recipe_may_grow_but_not_change(recipe, tmp_path):
    zoo = train_recipe(recipe, tmp_path / "zoo")
    more = '\n[[population]]\ntask = "digits"\narchitecture = "weightgen/mlp?hidden=2"\nnetworks = 1\nsteps = 1\n'
    recipe.write_text(RECIPE + more)
    assert len(train_recipe(recipe, zoo.path)) == 13
    recipe.write_text(RECIPE.replace("steps = 40", "steps = 41"))
    with pytest.raises(RecipeError, match="other settings"):
        train_recipe(recipe, zoo.path)


@pytest.mark.parametrize(
    ("old", "new", "texts"),
    [
        ("[[population]]", "[[population", ["not a TOML file"]),
        ('name = "pico"', "", ["'name' is missing"]),
        ('name = "pico"', "name = 3", ["name"]),
        ('name = "pico"', 'name = "pico"\ncolour = 1', ["unknown entry 'colour'"]),
        ("networks = 10", "network = 10", ["population 1", "'network'", "networks"]),
        ("networks = 10\n", "", ["'networks' is missing"]),
        ("networks = 10", "networks = 0", ["networks", "got 0", "1 to"]),
        ("networks = 10", "networks = true", ["networks", "got True"]),
        ("steps = 40", "steps = 1.5", ["steps"]),
        ("first_seed = 5", "first_seed = -1", ["first_seed"]),
        ("[1e-2, 3e-2]", "[3e-2, 1e-2]", ["learning_rate"]),
        ("[1e-2, 3e-2]", "[0, 1e-2]", ["learning_rate", "above 0"]),
        ("[1e-2, 3e-2]", "inf", ["learning_rate"]),
        ("[1e-2, 3e-2]", "0", ["learning_rate", "above 0"]),
        ("[1e-5, 1e-3]", "[0, 1e-3]", ["weight_decay", "above 0"]),
        ("[1e-5, 1e-3]", "'small'", ["weight_decay"]),
        ('"float16"', '"float8"', ["dtype", "bfloat16"]),
        ("[0.5, 0.0, 0.5]", "[0.5, 0.5]", ["population 2", "split"]),
        ("[0.5, 0.0, 0.5]", "[0.5, 0.0, 0.6]", ["split", "sum to 1"]),
        ('task = "digits"', 'task = "digit"', ["unknown task 'digit'", "digits"]),
        ('task = "digits"', "task = 3", ["task", "a text"]),
        ("weightgen/mlp", "weightgen/mpl", ["population 1", "weightgen/mlp"]),
        ("hidden=4", "hidden=4&classes=7", ["classes", "does not fit", "got 7", "leave it out"]),
        ("hidden=4", "hidden=4&input=1,28,28", ["input", "does not fit"]),
        ("weightgen/mlp?hidden=4", "timm/resnet18", ["family"]),
    ],
)
def test_errors_say_where(recipe, old, new, texts):
    recipe.write_text(RECIPE.replace(old, new, 1))
    with pytest.raises(RecipeError) as error:
        read_recipe(recipe)
    assert str(recipe) in str(error.value)
    assert all(text in str(error.value) for text in texts), error.value


def test_two_populations_may_not_hold_the_same_run(recipe):
    more = RECIPE[RECIPE.index("[[population]]") :].replace("first_seed = 5", "first_seed = 14")
    recipe.write_text(RECIPE + more)
    with pytest.raises(RecipeError, match=r"population 3.*seed-14.*population 1"):
        read_recipe(recipe)


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(MissingDataError, match=r"none\.toml"):
        read_recipe(tmp_path / "none.toml")


def test_what_is_stored_is_a_checkpoint_of_its_own(recipe, tmp_path):
    zoo = train_recipe(recipe, tmp_path / "zoo")
    zoo.load("digits-3v8-cnn-2-3-tanh-s001").save(tmp_path / "one")
    assert Checkpoint.load(tmp_path / "one").build().head.out_features == 2
