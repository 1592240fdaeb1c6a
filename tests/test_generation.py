import dataclasses
import math
import shutil

import pytest
import torch

from weightgen import Checkpoint, evaluate, generate, get_task
from weightgen.errors import (
    CorruptFileError,
    InstructionError,
    MissingDataError,
    UnknownNameError,
    WeightgenError,
)
from weightgen.generation import FLOOR_DRAWS, _novelties, run, understand
from weightgen.instructions import Constraints
from weightgen.tasks import task as tasks

CNN, MLP = "weightgen/cnn?channels=4", "weightgen/mlp?hidden=8"
PROMPT = "a small CNN that reads handwritten digits"


def accuracy(network, split: str = "test") -> float:
    return evaluate(network.build(), get_task("digits"), split)["metrics"]["accuracy"]


@pytest.fixture
def without_data(monkeypatch):
    """A machine on which the data of digits is not there."""

    def load():
        raise MissingDataError("digits is not there")

    absent = dataclasses.replace(get_task("digits"), load=load)
    monkeypatch.setitem(tasks._made, "digits", absent)


@pytest.mark.parametrize(
    ("prompt", "architecture"),
    [
        (PROMPT, CNN),
        ("an MLP that reads handwritten digits", MLP),
        ("a small network for handwritten digits", CNN),
        ("a large network for handwritten digits", MLP),
        ("a network for handwritten digits, under 600 parameters", CNN),
        ("a network for handwritten digits, over 600 parameters", MLP),
    ],
)
def test_the_architecture_that_fits_is_chosen(pico, prompt, architecture):
    request = understand(prompt, generator=pico.generator)
    assert (request.task, request.architecture, request.instruction) == ("digits", architecture, prompt)


def test_an_architecture_may_be_given_in_other_words(pico):
    for recipe in (MLP, "weightgen/mlp?hidden=8&activation=relu", "weightgen/mlp?hidden=8&input=1,8,8&classes=10"):
        assert understand("handwritten digits", architecture=recipe, generator=pico.generator).architecture == MLP


@pytest.mark.parametrize(
    ("prompt", "options", "match"),
    [
        ("", {}, "the prompt is empty"),
        ("a network that sings", {}, "names no known task"),
        ("a CNN for MNIST", {}, "writes no networks for the task mnist; expected one of: digits"),
        ("a CNN for handwritten digits", {"task": "mnist"}, "writes no networks for the task mnist"),
        ("handwritten digits, under 100 parameters", {}, "under 100 parameters; .*the smallest is 210 parameters"),
        ("handwritten digits, over 5000 parameters", {}, "over 5,000 parameters; .*the largest is 610 parameters"),
        ("handwritten digits, at least 900 and at most 300 parameters", {}, "contradict each other"),
        ("a CNN for handwritten digits with 3 convolutions", {}, "3 layers.*expected one of: 1"),
        ("a tanh network for handwritten digits", {}, "tanh activation.*expected one of: relu"),
        ("a network for handwritten digits with 99.9 % accuracy", {}, "99.9 % accuracy.*the best is"),
        ("handwritten digits", {"architecture": "weightgen/cnn?channels=5"}, f"writes no .*one of: .*{CNN[:13]}"),
        ("handwritten digits", {"architecture": "timm/resnet18"}, "writes no 'timm/resnet18"),
        ("an MLP for handwritten digits", {"architecture": CNN}, "prompt and the architecture contradict"),
        ("handwritten digits, under 600 parameters", {"architecture": MLP}, "under 600 parameters"),
    ],
)
def test_what_cannot_be_met_is_said_before_any_work(pico, prompt, options, match):
    with pytest.raises(InstructionError, match=match):
        generate(prompt, generator=pico.generator, **options)


def test_a_generator_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UnknownNameError, match="unknown generator.*'nowhere'"):
        understand(PROMPT, generator="nowhere")
    with pytest.raises(MissingDataError, match=r"config.json"):
        understand(PROMPT, generator=tmp_path)


@pytest.mark.parametrize("damage", [b"", b"[]", b"{}", b'{"provenance": {"cells": {"digits": [{}]}}}', b"[" * 100_000])
def test_a_damaged_config_is_named(tmp_path, damage):
    (tmp_path / "config.json").write_bytes(damage)
    with pytest.raises(CorruptFileError, match="config cannot be read"):
        understand(PROMPT, generator=tmp_path)


def test_networks_come_with_what_was_measured(pico):
    networks = generate(PROMPT, num=3, seed=1, generator=pico.generator)
    task = get_task("digits")
    assert len({network.id for network in networks}) == 3
    for index, network in enumerate(networks):
        assert str(network.architecture) == CNN and network.parameters == 210
        card = network.card
        assert (card.task, card.origin) == ("digits", "generated")
        assert [(metric.name, metric.split, metric.digest) for metric in card.metrics] == [
            ("accuracy", "test", task.digest)
        ]
        assert card.metric("accuracy") == accuracy(network)
        made = card.made_with
        assert (made["instruction"], made["seed"], made["index"], made["top_p"]) == (PROMPT, 1, index, 0.9)
        assert (made["best_of"], made["selected_on"], made["refine"]) == (1, None, 0)
        assert set(made["novelty"]) == {"distance_ratio", "error_iou", "token_replay"}
        assert made["novelty"]["distance_ratio"] > 0
        assert 0 <= made["novelty"]["error_iou"] <= 1 and 0 <= made["novelty"]["token_replay"] <= 1


def test_the_same_seed_gives_the_same_networks(pico):
    first, again, other = (
        [network.id for network in generate(PROMPT, num=2, seed=seed, generator=pico.generator)] for seed in (2, 2, 3)
    )
    assert first == again and set(first).isdisjoint(other)


def test_a_run_tells_of_the_zoo_and_its_stages(pico):
    stages = []
    request = understand(PROMPT, generator=pico.generator)
    result = run(request, num=2, refine=1, generator=pico.generator, show=stages.append)
    rows = list(pico.zoo.query(f"split = 'train' and architecture = '{CNN}'"))
    assert result.zoo_count == len(rows) == 4
    assert result.zoo_accuracy == pytest.approx(sum(row.metrics["accuracy"] for row in rows) / 4)
    assert result.request == request and result.notes == []
    assert stages == ["loading the generator", "sampling 2 networks", "refining for 1 steps", "measuring"]
    assert all(network.seconds > 0 for network in result.networks)


def test_best_of_chooses_on_validation_data_only(pico):
    num, draws = 8, 4
    request = understand(PROMPT, generator=pico.generator)
    drawn = pico.igpg.sample(request, num * draws, seed=0)
    groups = [drawn[start : start + draws] for start in range(0, num * draws, draws)]
    kept = generate(PROMPT, num=num, best_of=draws, generator=pico.generator)
    test_would_differ = 0
    for network, group in zip(kept, groups, strict=True):
        of_group = {one.id: accuracy(one, "validation") for one in group}
        assert of_group[network.id] == max(of_group.values())
        assert (network.card.made_with["best_of"], network.card.made_with["selected_on"]) == (draws, "validation")
        test_would_differ += accuracy(network) < max(map(accuracy, group))
    assert test_would_differ > 0, "choosing on test data would have been noticed"


def test_refining_makes_a_network_better_and_says_so(pico):
    plain = generate(PROMPT, num=2, generator=pico.generator)
    refined = generate(PROMPT, num=2, refine=100, generator=pico.generator)
    for before, after in zip(plain, refined, strict=True):
        assert after.card.metric("accuracy") > before.card.metric("accuracy")
        assert (after.card.origin, after.card.parents) == ("refined", (before.id,))
        assert after.card.made_with["refine"] == 100 and after.card.metric("accuracy") == accuracy(after)
    again = generate(PROMPT, num=2, refine=100, generator=pico.generator)
    assert [network.id for network in again] == [network.id for network in refined]


def test_an_accuracy_that_is_not_reached_is_an_error(pico):
    request = understand(PROMPT, generator=pico.generator)
    asked = dataclasses.replace(request, constraints=Constraints(minimum_accuracy=0.999))
    with pytest.raises(
        WeightgenError, match=r"no network reached.*validation data of digits; got .* expected .*99.9 %"
    ):
        run(asked, generator=pico.generator)


def test_an_accuracy_that_is_asked_for_is_worth_several_draws(pico):
    request = understand(PROMPT, generator=pico.generator)
    asked = dataclasses.replace(request, constraints=Constraints(minimum_accuracy=0.01))
    (network,) = (one.checkpoint for one in run(asked, generator=pico.generator).networks)
    reached = [accuracy(one, "validation") for one in pico.igpg.sample(request, FLOOR_DRAWS, seed=0)]
    assert accuracy(network, "validation") == max(reached)
    assert network.card.made_with["best_of"] == FLOOR_DRAWS


@pytest.mark.parametrize("options", [{"num": 0}, {"best_of": 0}, {"refine": -1}])
def test_impossible_numbers_are_refused(pico, options):
    with pytest.raises(WeightgenError, match=f"{next(iter(options))} is too small"):
        generate(PROMPT, generator=pico.generator, **options)


def test_without_the_data_networks_come_unmeasured(pico, without_data):
    request = understand(PROMPT, generator=pico.generator)
    result = run(request, num=2, generator=pico.generator)
    assert [note.partition(":")[0] for note in result.notes] == ["not evaluated"]
    for network in result.networks:
        assert network.accuracy is None and network.checkpoint.card.metrics == ()
        assert network.novelty["error_iou"] is None and network.novelty["distance_ratio"] > 0
    assert [one.checkpoint.id for one in result.networks] == [one.id for one in pico.igpg.sample(request, 2, 0)]


@pytest.mark.parametrize("options", [{"best_of": 2}, {"refine": 1}])
def test_what_needs_data_says_so(pico, without_data, options):
    with pytest.raises(MissingDataError, match="digits is not there"):
        generate(PROMPT, generator=pico.generator, **options)


def test_without_the_zoo_novelty_is_unknown(pico, tmp_path):
    for name in ("tokenizers", "checkpoints"):
        shutil.copytree(pico.root / name, tmp_path / name)
    request = understand(PROMPT, generator=pico.generator)
    result = run(request, generator=tmp_path / "checkpoints/pico")
    assert result.notes[0].startswith("novelty not measured: the zoo that the generator learned from is not here")
    assert result.networks[0].novelty == {"distance_ratio": None, "error_iou": None, "token_replay": None}
    assert result.networks[0].accuracy is not None


def test_a_replay_is_told_from_a_new_network(pico):
    """The zoo beside the generator is what novelty is measured against."""
    request = understand(PROMPT, generator=pico.generator)
    known = next(iter(pico.zoo.query(f"split = 'train' and architecture = '{CNN}'"))).load()
    torch.manual_seed(0)
    fresh = known.architecture.build().state_dict()
    networks = [known, Checkpoint(known.architecture, fresh, known.card)]
    (replay, new), notes = _novelties(pico.igpg, pico.generator, networks, get_task("digits"), request)
    assert notes == []
    assert replay["distance_ratio"] == pytest.approx(0, abs=1e-3) and replay["error_iou"] == 1
    assert replay["token_replay"] > 0.9
    assert new["distance_ratio"] > 0.3 and new["error_iou"] < 1 and not math.isnan(new["token_replay"])
