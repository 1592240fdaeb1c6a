import dataclasses
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weightgen.architecture import Architecture
from weightgen.checkpoint import Card, Checkpoint, Metric
from weightgen.errors import ArchitectureError, CorruptFileError, OutputError, UnknownNameError
from weightgen.storage import write_tensors

ARCHITECTURE = Architecture.parse("weightgen/mlp?hidden=4")
CARD = Card(
    task="digits",
    metrics=(Metric("accuracy", 0.5, "test", "d1"), Metric("accuracy", 0.6, "validation", "d1")),
    hyperparameters={"learning_rate": 0.001, "steps": 3, "optimizer": "adamw", "frozen": False, "note": None},
    parents=("ab", "cd"),
    origin="trained",
    run="digits/weightgen/mlp/seed-1",
    split="train",
    preprocessing={"scale": 16.0, "mean": 0.0, "deviation": 1.0},
    tags=("small",),
    made_with={"command": "weightgen zoo train", "seed": 1},
)


def fresh(seed: int = 0, architecture: Architecture = ARCHITECTURE, card: Card = CARD) -> Checkpoint:
    torch.manual_seed(seed)
    return Checkpoint(architecture, architecture.build().state_dict(), card)


def test_a_saved_checkpoint_is_loaded(tmp_path):
    checkpoint = fresh()
    checkpoint.save(tmp_path / "one.safetensors")
    loaded = Checkpoint.load(tmp_path / "one.safetensors")
    assert (loaded.architecture, loaded.card, loaded.id) == (ARCHITECTURE, CARD, checkpoint.id)
    assert loaded.shapes == checkpoint.shapes and loaded.shapes["head.weight"] == ("float32", (10, 4))
    assert loaded.parameters == 64 * 4 + 4 + 4 * 10 + 10
    images = torch.rand(3, 1, 8, 8)
    assert torch.equal(loaded.build()(images), checkpoint.build()(images))
    assert not loaded.build().training


def test_the_same_checkpoint_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        fresh().save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_the_id_is_of_weights_and_architecture_not_of_the_card():
    assert fresh().id == fresh(card=Card()).id
    assert fresh().id != fresh(1).id
    # A network with the same tensors and another activation computes something else.
    assert fresh().id != fresh(architecture=ARCHITECTURE.replace(activation="tanh")).id


def test_building_leaves_the_random_state_alone():
    checkpoint = fresh()
    state = torch.get_rng_state()
    checkpoint.build()
    assert torch.equal(torch.get_rng_state(), state)


def test_half_precision_is_stored_and_built_as_float32(tmp_path):
    checkpoint = Checkpoint(ARCHITECTURE, {name: tensor.half() for name, tensor in fresh().state_dict().items()})
    checkpoint.save(tmp_path / "half")
    loaded = Checkpoint.load(tmp_path / "half")
    assert loaded.tensor("head.bias").dtype == torch.float16
    assert {parameter.dtype for parameter in loaded.build().parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"head.bias": None}, "'head.bias' is missing"),
        ({"head.bias": torch.zeros(9)}, r"'head.bias' has the wrong shape; .*got \[9\]; expected \[10\]"),
        ({"extra": torch.zeros(9)}, "'extra' is superfluous"),
        ({"head.bias": torch.zeros(10, dtype=torch.complex64)}, "'head.bias' is of a kind"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, change, text):
    tensors = {name: tensor for name, tensor in {**fresh().state_dict(), **change}.items() if tensor is not None}
    with pytest.raises(ArchitectureError, match=text):
        Checkpoint(ARCHITECTURE, tensors)
    if not any(tensor.is_complex() for tensor in tensors.values()):
        header = {"kind": "checkpoint", "architecture": str(ARCHITECTURE), "card": Card().to_json()}
        write_tensors(tmp_path / "wrong", tensors, header)
        with pytest.raises(ArchitectureError, match=text):
            Checkpoint.load(tmp_path / "wrong")


def test_files_of_another_kind_are_refused(tmp_path):
    write_tensors(tmp_path / "other", {}, {"kind": "zoo blob"})
    with pytest.raises(CorruptFileError, match="not a checkpoint"):
        Checkpoint.load(tmp_path / "other")


def test_a_file_is_not_overwritten_without_force(tmp_path):
    fresh().save(tmp_path / "one")
    with pytest.raises(OutputError, match="--force"):
        fresh(1).save(tmp_path / "one")
    fresh(1).save(tmp_path / "one", force=True)
    assert Checkpoint.load(tmp_path / "one").id == fresh(1).id


def test_a_damaged_tensor_is_noticed_when_it_is_read(tmp_path):
    fresh().save(tmp_path / "one")
    content = bytearray((tmp_path / "one").read_bytes())
    content[-1] ^= 1
    (tmp_path / "one").write_bytes(content)
    with pytest.raises(CorruptFileError, match="does not match its digest"):
        Checkpoint.load(tmp_path / "one").build()


def test_nan_and_infinity_are_reported():
    tensors = {name: tensor.clone() for name, tensor in fresh().state_dict().items()}
    tensors["head.bias"][3], tensors["hidden1.weight"][0, 0] = float("nan"), float("inf")
    assert Checkpoint(ARCHITECTURE, tensors).non_finite() == ["hidden1.weight", "head.bias"]
    assert fresh().non_finite() == []


def test_an_unknown_tensor_suggests_near_ones():
    with pytest.raises(UnknownNameError, match=r"head\.weight"):
        fresh().tensor("head.wieght")


def test_the_card_can_be_replaced():
    checkpoint = fresh()
    assert checkpoint.replace_card(origin="refined").card == dataclasses.replace(CARD, origin="refined")
    assert checkpoint.card == CARD and checkpoint.replace_card(tags=()).id == checkpoint.id


def test_a_card_survives_json():
    assert Card.from_json(json.loads(json.dumps(CARD.to_json()))) == CARD
    assert Card.from_json({}) == Card()
    assert (CARD.metric("accuracy"), CARD.metric("accuracy", "validation"), CARD.metric("loss")) == (0.5, 0.6, None)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(st.sampled_from(sorted(CARD.to_json())), values)
def test_a_hostile_card_is_a_card_or_a_named_error(entry, value):
    try:
        card = Card.from_json({**CARD.to_json(), entry: value})
    except CorruptFileError:
        return
    assert isinstance(card, Card)


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"colour": "red"},
        {"task": 3},
        {"split": "testing"},
        {"parents": "ab"},
        {"metrics": [{"name": "accuracy", "value": "high", "split": "test", "digest": "d"}]},
        {"metrics": [{"name": "accuracy", "value": float("nan"), "split": "test", "digest": "d"}]},
        {"metrics": [{"name": "accuracy", "value": 10**400, "split": "test", "digest": "d"}]},
        {"metrics": [{"name": "accuracy", "value": 1}]},
        {"hyperparameters": {"betas": [0.9, 0.999]}},
        {"preprocessing": {"scale": "big"}},
    ],
)
def test_wrong_entries_of_a_card_are_named(content):
    with pytest.raises(CorruptFileError, match="a wrong entry; in card"):
        Card.from_json(content)
