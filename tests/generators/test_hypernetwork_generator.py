import json
from pathlib import Path

import pytest
import torch
from torch import nn

from weightgen.errors import (
    CorruptFileError,
    MissingDataError,
    OutputError,
    RecipeError,
    UnknownNameError,
    WeightgenError,
)
from weightgen.generators.conditions import Category, Scalar, Text
from weightgen.generators.hypernetwork import hypernetwork
from weightgen.generators.hypernetwork_generator import HypernetworkGenerator
from weightgen.generators.hypernetwork_recipes import make_hypernetwork, read_recipe
from weightgen.generators.hypernetwork_training import changed, fit_task, fit_zoo
from weightgen.instructions import Request
from weightgen.instructions.encoder import InstructionEncoder, InstructionEncoderConfig
from weightgen.tasks import evaluate, get_task
from weightgen.training.loop import LoopConfig

CNN = "weightgen/cnn?channels=4"


@pytest.fixture(scope="module")
def folder(pico):
    return pico.hypernetwork(CNN)


def test_what_is_saved_is_what_was_trained(folder, tmp_path):
    loaded = HypernetworkGenerator.from_pretrained(folder)
    loaded.save_pretrained(tmp_path / "again", "# Again\n")
    again = HypernetworkGenerator.from_pretrained(tmp_path / "again")
    for angle in (0.0, 77.0, 180.0):
        assert loaded.condition(angle).id == again.condition({"rotation": angle}).id
    assert loaded.condition(10.0).id != loaded.condition(20.0).id
    card = (Path(folder, "README.md")).read_text()
    assert "weightgen train hypernetwork" in card and "| rotation=180 |" in card


def test_a_network_fits_its_condition():
    torch.manual_seed(0)
    hyper = hypernetwork("weightgen/cnn?channels=8,16", {"rotation": Scalar(0, 180)})
    fit_task(hyper, get_task("digits"), LoopConfig(400, 3e-3, warmup=20, weight_decay=0.0))
    loaded = HypernetworkGenerator(hyper, "digits")

    def accuracy(network, degrees):
        return evaluate(network.build(), loaded.task_at({"rotation": degrees}))["metrics"]["accuracy"]

    upright, turned = loaded.condition(0.0), loaded.condition(180.0)
    assert upright.card.task == "digits" and upright.card.preprocessing is not None
    # Told wrongly, each is worse: the condition is what makes it fit.
    assert accuracy(upright, 0) > max(0.7, accuracy(turned, 0) + 0.1)
    assert accuracy(turned, 180) > max(0.7, accuracy(upright, 180) + 0.1)


def test_a_text_as_condition(tmp_path):
    torch.manual_seed(0)
    encoder = InstructionEncoder(InstructionEncoderConfig(buckets=256, width=16, dimension=16))
    hyper = hypernetwork(CNN, {"layout.told": Text(encoder)})
    frozen = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    texts = ("digits as they are", "digits turned upside down")
    images, labels = get_task("digits").train()
    shown = (images, images.flip(2, 3))
    z = hyper.space.values({"layout.told": list(texts)})
    optimiser = torch.optim.Adam(hyper.parameters(), 1e-2)
    for _ in range(150):
        index = torch.randint(len(labels), (64,))
        losses = [
            nn.functional.cross_entropy(hyper.forward_at(one, part[index]), labels[index])
            for one, part in zip(z, shown, strict=True)
        ]
        optimiser.zero_grad()
        sum(losses).backward()
        optimiser.step()
    assert all(torch.equal(frozen[name], tensor) for name, tensor in encoder.state_dict().items())
    HypernetworkGenerator(hyper.eval(), "digits").save_pretrained(tmp_path)
    loaded = HypernetworkGenerator.from_pretrained(tmp_path)
    networks = [loaded.condition(loaded.read([f"layout.told={text}"])).build() for text in texts]
    right = [
        [(network(part).argmax(-1) == labels).double().mean().item() for part in shown] for network in networks
    ]  # fmt: skip
    # Each text gives the network for what it says, and not for what the other says.
    assert right[0][0] > right[0][1] + 0.2 and right[1][1] > right[1][0] + 0.2


def test_it_keeps_to_its_task_and_architecture(folder):
    loaded = HypernetworkGenerator.from_pretrained(folder)
    with pytest.raises(WeightgenError, match="another task; got mnist; expected digits"):
        loaded.sample(Request("", "mnist"), 1, 0)
    with pytest.raises(WeightgenError, match="another architecture"):
        loaded.sample(Request("", "digits", "weightgen/mlp"), 1, 0)
    with pytest.raises(WeightgenError, match="no recipe"):
        HypernetworkGenerator(hypernetwork(torch.nn.Linear(2, 2), 1), "digits")


def test_conditions_are_read_from_texts():
    hyper = hypernetwork(CNN, {"rotation": Scalar(0, 90), "ink": Category(("dark", "light"))})
    generator = HypernetworkGenerator(hyper, "digits")
    assert generator.read(["rotation=0.3", "ink=light"]) == {"rotation": 0.3, "ink": "light"}
    for text, part in (("rotation", "NAME=VALUE"), ("rotation=left", "not a number; in condition rotation")):
        with pytest.raises(WeightgenError, match=part):
            generator.read([text])


def test_damage_is_found(folder, tmp_path):
    loaded = HypernetworkGenerator.from_pretrained(folder)
    loaded.save_pretrained(tmp_path, "")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "task": "mnist"}))
    with pytest.raises(CorruptFileError, match="not the one the model was saved with"):
        HypernetworkGenerator.from_pretrained(tmp_path)


def test_it_learns_from_the_cards_of_a_zoo(pico):
    rows = [row for row in pico.zoo.query("split = 'train'") if row.architecture == CNN]
    rates = [row.hyperparameters["learning_rate"] for row in rows]
    torch.manual_seed(0)
    hyper = hypernetwork(CNN, {"hyperparameters.learning_rate": Scalar(1e-3, 1e-1, logarithmic=True)})
    task = get_task("digits")
    fit_zoo(hyper, rows, task, LoopConfig(150, 1e-2, warmup=5))
    found = evaluate(hyper.weights({"hyperparameters.learning_rate": rates[0]}).build(), task)["metrics"]["accuracy"]
    assert found > rows[0].metrics["accuracy"] - 0.15

    with pytest.raises(WeightgenError, match="out of its range; in hyperparameters.learning_rate"):
        fit_zoo(hypernetwork(CNN, {"hyperparameters.learning_rate": Scalar(0.5, 1)}), rows, task, LoopConfig(1))
    with pytest.raises(WeightgenError, match="a card has no metrics 'loss'.*expected accuracy"):
        fit_zoo(hypernetwork(CNN, {"metrics.loss": Scalar()}), rows, task, LoopConfig(1))
    with pytest.raises(UnknownNameError, match="figure of a card 'accuracy'.*metrics.accuracy"):
        fit_zoo(hypernetwork(CNN, {"accuracy": Scalar()}), rows, task, LoopConfig(1))
    with pytest.raises(MissingDataError, match="no networks to learn from"):
        fit_zoo(hyper, [], task, LoopConfig(1))


def test_a_loss_that_is_not_finite_stops_the_training():
    hyper = hypernetwork(CNN, {"rotation": Scalar(0, 90)})
    with torch.no_grad():
        hyper.base["head.bias"].fill_(float("nan"))
    with pytest.raises(WeightgenError, match="hypernetwork diverged; in step 0"):
        fit_task(hyper, get_task("digits"), LoopConfig(3))


def test_only_changes_of_images_are_conditions_of_a_task():
    hyper = hypernetwork(CNN, {"rotatoin": Scalar(0, 90)})
    with pytest.raises(UnknownNameError, match="change of images 'rotatoin'.*rotation"):
        changed(hyper.space, torch.zeros(1), torch.zeros(1, 1, 8, 8))


@pytest.mark.parametrize(
    ("text", "error", "part"),
    [
        ('task = "digits"\narchitecture = "weightgen/cnn"', RecipeError, "'condition' is missing"),
        ("tsak = 1", UnknownNameError, "'tsak'.*task"),
        ("task =", RecipeError, "not a TOML file"),
        ("steps = 0", RecipeError, "steps; got 0"),
        ("learning_rate = -1", RecipeError, "learning_rate"),
        ("condition = 3", RecipeError, "NAME"),
        ('condition.rotation.kind = "angle"', UnknownNameError, "kind of condition 'angle'"),
        ("condition.rotation.lwo = 1", WeightgenError, "cannot be read.*lwo"),
    ],
)
def test_bad_recipes(tmp_path, text, error, part):
    path = tmp_path / "recipe.toml"
    given = {line.split("=")[0].split(".")[0].strip() for line in text.splitlines()}
    whole = {
        "task": 'task = "digits"', "architecture": 'architecture = "weightgen/cnn"',
        "condition": "condition.rotation.low = 0",
    }  # fmt: skip
    missing = [] if "architecture" in given else [line for name, line in whole.items() if name not in given]
    path.write_text("\n".join([*missing, text]))
    with pytest.raises(error, match=part):
        read_recipe(path)


def test_what_is_there_is_not_overwritten(pico, folder, tmp_path):
    with pytest.raises(OutputError, match="there is one already.*--force"):
        make_hypernetwork(pico.root / "cnn.toml", folder)
    with pytest.raises(MissingDataError, match="cannot read the recipe"):
        make_hypernetwork(tmp_path / "none.toml", tmp_path / "out")
