"""The artefacts that ship: a zoo, a tokenizer and a generator named starter."""

import json
from pathlib import Path

import pytest
import torch

from weightgen import Checkpoint, WeightTokenizer, Zoo, evaluate, get_task
from weightgen.architecture import Architecture
from weightgen.checkpoint import SPLITS
from weightgen.cli import main
from weightgen.generation import understand
from weightgen.generators.igpg import IGPG, conditioning
from weightgen.instructions import Request
from weightgen.training.population import population_predictions

ROOT = Path(__file__).resolve().parent.parent
SHELVES = ("zoo", "tokenizers", "checkpoints")
PROMPT = "a small CNN that reads handwritten digits, under 5k parameters"
MEGABYTE = 1_000_000

pytestmark = pytest.mark.skipif(
    not (ROOT / "checkpoints/starter").is_dir(), reason="checkpoints/starter does not exist yet"
)


@pytest.fixture(scope="module")
def zoo() -> Zoo:
    return Zoo.open("starter")


@pytest.fixture(scope="module")
def igpg() -> IGPG:
    return IGPG.from_pretrained("starter")


def size(shelf: str) -> int:
    """Bytes that ship; SQLite's own passing files do not."""
    files = [path for path in (ROOT / shelf / "starter").rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files if not path.name.endswith(("-wal", "-shm")))


@pytest.mark.parametrize("shelf", SHELVES)
def test_each_is_small_and_has_a_card(shelf):
    assert 0 < size(shelf) < 8 * MEGABYTE
    card = (ROOT / shelf / "starter/README.md").read_text(encoding="utf-8")
    assert card.startswith("# starter") and "weightgen " in card
    assert not list((ROOT / shelf / "starter").rglob(".state*")), "what a training leaves behind does not ship"


def test_all_are_small_together():
    assert sum(map(size, SHELVES)) < 30 * MEGABYTE


def test_the_zoo_is_wide_enough(zoo):
    assert len(zoo) >= 200
    assert {row.task for row in zoo} == {"digits", "mnist"}
    for task in ("digits", "mnist"):
        recipes = {row.architecture for row in zoo.query(f"task = '{task}'")}
        families = [Architecture.parse(recipe).family for recipe in recipes]
        assert families.count("weightgen/mlp") >= 2 and families.count("weightgen/cnn") >= 3


def test_no_run_stands_in_two_splits(zoo):
    splits: dict[str, set] = {}
    for row in zoo:
        assert row.run and row.split in SPLITS
        splits.setdefault(row.run, set()).add(row.split)
    assert all(len(found) == 1 for found in splits.values())
    assert {split for found in splits.values() for split in found} == set(SPLITS)


def test_a_network_of_the_zoo_is_as_good_as_its_card_says(zoo):
    for row in zoo.query("task = 'digits'").order_by("-metrics.accuracy").limit(2):
        network = row.load()
        assert network.non_finite() == []
        found = evaluate(network.build(), get_task("digits"))["metrics"]["accuracy"]
        assert found == pytest.approx(row.metrics["accuracy"], abs=0.003)


def test_what_was_learned_from_the_zoo_names_it(zoo, igpg):
    tokenizer = WeightTokenizer.from_pretrained("starter")
    assert tokenizer.provenance["zoo"] == {"name": "starter", "digest": zoo.digest}
    assert igpg.provenance["zoo"] == {"name": "starter", "digest": zoo.digest}
    assert igpg.provenance["tokenizer"]["id"] == tokenizer.provenance["id"]
    for shelf in SHELVES:
        assert zoo.digest in (ROOT / shelf / "starter/README.md").read_text(encoding="utf-8")


def test_only_training_runs_were_learned_from(zoo, igpg):
    split = {row.id: row.split for row in zoo}
    learned = [name for remembered in igpg.remembered.values() for name in remembered.ids]
    assert len(learned) > 100 and {split[name] for name in learned} == {"train"}


def test_the_first_command_of_the_readme(tmp_path, capsys):
    out = tmp_path / "digits.safetensors"
    assert main(["generate", PROMPT, "--out", str(out), "--json"]) == 0
    (network,) = json.loads(capsys.readouterr().out)["networks"]
    loaded = Checkpoint.load(out)
    assert loaded.architecture.family == "weightgen/cnn" and loaded.parameters < 5000 and loaded.card.task == "digits"
    assert loaded.non_finite() == []
    found = evaluate(loaded.build(), get_task("digits"))["metrics"]["accuracy"]
    assert network["metrics"]["accuracy"] == found >= 0.9
    assert all(network["novelty"][name] is not None for name in ("distance_ratio", "error_iou", "token_replay"))


@pytest.mark.parametrize("prompt", [PROMPT, "an MLP for handwritten digits"])
def test_what_is_written_works_and_is_no_replay(igpg, prompt):
    request = understand(prompt)
    networks = igpg.sample(request, 10, seed=11)
    accuracies = [evaluate(network.build(), get_task("digits"))["metrics"]["accuracy"] for network in networks]
    assert sum(accuracies) / 10 >= 0.9 and all(network.non_finite() == [] for network in networks)
    assert len({network.id for network in networks}) == 10


def test_a_wrong_instruction_gives_networks_that_cannot_read_digits(igpg):
    """The control: the same architecture, told to read MNIST."""
    architecture = Architecture.parse(str(understand(PROMPT).architecture))
    images, labels = get_task("digits").test()

    def accuracy(instruction: str, task: str) -> float:
        spoken = [conditioning(Request(instruction, task))] * 10
        tensors = igpg.sample_tensors(architecture, spoken, seed=0)
        assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())
        return (population_predictions(architecture, tensors, images) == labels).double().mean().item()

    assert accuracy("a small CNN that classifies MNIST images", "mnist") <= 0.25
    assert accuracy(PROMPT, "digits") >= 0.9
