import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weightgen.errors import UnknownNameError, WeightgenError
from weightgen.generators.conditions import Category, ConditionSpace, Scalar, Text, Vector
from weightgen.instructions.encoder import InstructionEncoder, InstructionEncoderConfig

MIXED = {"rotation": Scalar(-90, 90), "decay": Scalar(1e-6, 1e-2, True), "blur": Category(("none", "some"))}


@given(st.floats(-90, 90), st.floats(1e-6, 1e-2), st.sampled_from(["none", "some"]))
def test_units_lead_to_z_and_back(rotation, decay, blur):
    space = ConditionSpace(MIXED)
    z = space.values({"rotation": rotation, "decay": decay, "blur": blur})
    assert z.shape == (4,) and z.min() >= -1e-6 and z.max() <= 1 + 1e-6
    told = space.describe(z)
    assert told["blur"] == blur
    assert told["rotation"] == pytest.approx(rotation, abs=1e-4)
    assert told["decay"] == pytest.approx(decay, rel=1e-4, abs=1e-8)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_the_encoding_has_norm_one_at_every_z(z):
    space = ConditionSpace({"position": Vector(3), "kind": Category(("a", "b"))})
    values = space.values({"position": torch.tensor(z), "kind": "b"})
    assert space.encode(values).norm().item() == pytest.approx(1, abs=1e-5)
    assert space.encode(values).shape == (space.width(True),) == (8,)
    assert torch.equal(space.encode(values, False), values) and space.width(False) == 5


def test_the_encoding_is_that_of_the_paper():
    encoded = ConditionSpace(1).encode(torch.tensor([[0.0], [0.5], [1.0]]))
    half = math.sqrt(0.5)
    assert torch.allclose(encoded, torch.tensor([[1.0, 0.0], [half, half], [0.0, 1.0]]), atol=1e-6)


@pytest.mark.parametrize(
    ("value", "shape"), [(30, (1,)), (torch.tensor(30.0), (1,)), ([1, 2, 3], (3, 1)), (torch.zeros(5, 1), (5, 1))]
)
def test_a_lone_scalar_needs_no_name(value, shape):
    assert ConditionSpace(Scalar(0, 90)).values(value).shape == shape


def test_a_lone_condition_is_spread_over_the_others():
    z = ConditionSpace(MIXED).values({"rotation": [0.0, 90.0], "decay": 1e-4, "blur": "some"})
    assert torch.allclose(z, torch.tensor([[0.5, 0.5, 0, 1], [1, 0.5, 0, 1]]), atol=1e-5)


def test_a_tensor_does_where_all_are_numbers():
    space = ConditionSpace({"a": Scalar(0, 10), "b": Vector(2, -1, 1)})
    assert torch.allclose(space.values(torch.tensor([5.0, -1.0, 0.0])), torch.tensor([0.5, 0.0, 0.5]))
    assert space.values(torch.zeros(4, 3)).shape == (4, 3)
    assert space.names == ["a", "b.0", "b.1"]
    with pytest.raises(WeightgenError, match=r"expected \[3\] or \[n, 3\]: a, b.0, b.1"):
        space.values(torch.zeros(4, 2))
    with pytest.raises(WeightgenError, match="given by name.*a, b"):
        space.values([0.0, 0.0, 0.0])


def test_texts_are_read_by_the_encoder():
    encoder = InstructionEncoder(InstructionEncoderConfig(buckets=64, width=8, dimension=6))
    space = ConditionSpace({"style": Text(encoder), "size": Scalar()})
    one = space.values({"style": "turned to the left", "size": 0.5})
    several = space.values({"style": ["turned to the left", "upside down"], "size": [0.5, 1]})
    assert one.shape == (7,) and torch.allclose(several[0], one) and not one.requires_grad
    assert space.encode(several).norm(dim=1).tolist() == pytest.approx([1, 1])
    again = ConditionSpace.from_json(json.loads(json.dumps(space.to_json())))
    assert again.dimension == 7 and again.names[-1] == "size"
    with pytest.raises(WeightgenError, match="cannot be drawn"):
        space.draw(2)


def test_drawn_conditions_fill_their_ranges():
    z = ConditionSpace(MIXED).draw(500, torch.Generator().manual_seed(0))
    assert z.shape == (500, 4) and z.min() >= 0 and z.max() <= 1
    assert z[:, :2].mean(0).tolist() == pytest.approx([0.5, 0.5], abs=0.05)
    assert torch.equal(z[:, 2:].sum(1), torch.ones(500)) and 150 < z[:, 2].sum() < 350


def test_spaces_survive_json():
    space = ConditionSpace(MIXED, clamp=True)
    again = ConditionSpace.from_json(json.loads(json.dumps(space.to_json())))
    assert again.entries == space.entries and again.clamp


@pytest.mark.parametrize("value", [91, -90.1, float("nan"), float("inf"), [0.0, 200.0]])
def test_out_of_range_names_the_range(value):
    with pytest.raises(WeightgenError, match="in rotation; got .*expected -90 to 90; .*clamp=True"):
        ConditionSpace({"rotation": Scalar(-90, 90)}).values({"rotation": value})


def test_clamping_is_done_when_asked_for():
    assert ConditionSpace(Scalar(-90, 90), clamp=True).values([-1000.0, 1000.0]).tolist() == [[0.0], [1.0]]


@pytest.mark.parametrize(
    ("condition", "error", "text"),
    [
        ({"rotatoin": 0.0, "decay": 1e-4, "blur": "none"}, UnknownNameError, "rotatoin.*rotation"),
        ({"rotation": 0.0, "blur": "none"}, WeightgenError, "'decay' is missing"),
        ({"rotation": 0.0, "decay": 1e-4, "blur": "sum"}, UnknownNameError, "category of blur 'sum'.*some"),
        ({"rotation": 0.0, "decay": 1e-4, "blur": None}, WeightgenError, "not a name or text; in condition blur"),
        (
            {"rotation": 0.0, "decay": 1e-4, "blur": ["none", 3]},
            WeightgenError,
            r"got \['none', 3\]; expected a string",
        ),
        ({"rotation": 0.0, "decay": 1e-4, "blur": []}, WeightgenError, r"not a name or text.*got \[\]"),
        ({"rotation": [0.0, 1.0], "decay": [1e-4] * 3, "blur": "none"}, WeightgenError, "different numbers; got 2, 3"),
        ({"rotation": "left", "decay": 1e-4, "blur": "none"}, WeightgenError, "not a number; in condition rotation"),
        ({"rotation": torch.zeros(2, 2), "decay": 1e-4, "blur": "none"}, WeightgenError, "wrong shape; in rotation"),
    ],
)
def test_bad_conditions(condition, error, text):
    with pytest.raises(error, match=text):
        ConditionSpace(MIXED).values(condition)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Scalar(1, 1), "not a range; got 1 to 1"),
        (lambda: Scalar(0, 1, True), "begins above 0"),
        (lambda: Vector(0), "at least one dimension"),
        (lambda: Vector(2, 0, math.inf), "not a range"),
        (lambda: Category(("a", "a")), "different names"),
        (lambda: ConditionSpace({}), "needs a condition"),
        (lambda: ConditionSpace({"a": 3}), "not a condition; in a; got 3"),
    ],
)
def test_bad_spaces(make, text):
    with pytest.raises(WeightgenError, match=text):
        make()
