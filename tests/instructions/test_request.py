import json
import subprocess
import sys

import pytest

from weightgen.errors import InstructionError
from weightgen.instructions import Candidate, Constraints, Request, choose

SMALL = Candidate("weightgen/mlp?hidden=16", "mlp", 1_210, 1, 0.94)
MIDDLE = Candidate("weightgen/cnn", "cnn", 1_898, 2, 0.96)
LARGE = Candidate("weightgen/cnn?channels=16,32", "cnn", 6_000, 2, 0.98)
DEEP = Candidate("weightgen/cnn?activation=tanh&channels=8,8,8", "cnn", 3_000, 3, None)
ALL = [LARGE, SMALL, DEEP, MIDDLE]


def asking(**constraints):
    return Request("", "digits", None, Constraints(**constraints))


def test_describe_says_what_was_understood():
    request = Request("…", "digits", None, Constraints(maximum_parameters=4_999, family="cnn", size="small"))
    assert request.describe() == (
        "understood: task digits · convolutional network (cnn) · under 5,000 parameters · small"
    )
    constraints = Constraints(3000, 2001, 0.95, "mlp", 1, None, "relu", "most")
    request = Request("…", "mnist", "weightgen/mlp?hidden=32", constraints)
    assert request.describe() == (
        "understood: task mnist · architecture weightgen/mlp?hidden=32 · multilayer perceptron (mlp) · "
        "1 hidden layer · 2,001 to 3,000 parameters · at least 95 % accurate · relu activation · most layers"
    )
    assert Request("…", "mnist").describe() == "understood: task mnist"


@pytest.mark.parametrize(
    "low, high, text",
    [
        (None, 4999, "under 5,000 parameters"),
        (None, 5000, "at most 5,000 parameters"),
        (4001, None, "over 4,000 parameters"),
        (4000, None, "at least 4,000 parameters"),
        (1898, 1898, "exactly 1,898 parameters"),
    ],
)
def test_limits_are_described_as_they_were_said(low, high, text):
    assert Constraints(high, low).describe() == [text]


def test_to_json_round_trips_through_text():
    request = Request("a net", "mnist/3v8", None, Constraints(minimum_accuracy=0.9))
    value = json.loads(json.dumps(request.to_json()))
    assert set(value) == {"instruction", "task", "architecture", "constraints"}
    assert Request(value["instruction"], value["task"], None, Constraints(**value["constraints"])) == request


@pytest.mark.parametrize(
    "constraints",
    [
        {"maximum_parameters": 0},
        {"maximum_parameters": 10, "minimum_parameters": 11},
        {"minimum_accuracy": 1.01},
        {"depth": -1},
    ],
)
def test_impossible_constraints_are_refused(constraints):
    with pytest.raises(InstructionError):
        Constraints(**constraints)


def test_choose_filters_by_every_constraint():
    assert set(choose(asking(family="cnn", maximum_parameters=4_999), ALL)) == {MIDDLE, DEEP}
    assert choose(asking(minimum_accuracy=0.97), ALL) == [LARGE]
    assert choose(asking(depth=3), ALL) == [DEEP]
    assert choose(asking(activation="tanh"), ALL) == [DEEP]
    assert choose(asking(minimum_parameters=3_001), ALL) == [LARGE]
    assert choose(Request("", "digits", "weightgen/cnn"), ALL) == [MIDDLE]


def test_choose_orders_by_size_then_by_nearness_to_the_middle():
    assert choose(asking(size="small"), ALL) == [SMALL, MIDDLE, DEEP, LARGE]
    assert choose(asking(size="large"), ALL) == [LARGE, DEEP, MIDDLE, SMALL]
    assert choose(asking(layering="most", size="small"), ALL)[0] == DEEP
    assert choose(asking(layering="fewest"), ALL)[0] == SMALL
    assert choose(asking(minimum_parameters=1_200, maximum_parameters=2_600), ALL) == [MIDDLE, SMALL]
    assert choose(asking(), ALL) == choose(asking(), ALL[::-1])


@pytest.mark.parametrize(
    "constraints, told",
    [
        ({"maximum_parameters": 1_000}, "the smallest is 1,210 parameters"),
        ({"family": "cnn", "maximum_parameters": 1_500}, "the smallest is 1,898 parameters"),
        ({"minimum_parameters": 10_000}, "the largest is 6,000 parameters"),
        ({"minimum_accuracy": 0.99}, "the best is 98.00 %"),
        ({"depth": 7}, "one of: 1, 2, 3 layers"),
        ({"activation": "gelu"}, "one of: relu, tanh"),
    ],
)
def test_choose_names_the_constraint_and_the_nearest(constraints, told):
    with pytest.raises(InstructionError, match=told):
        choose(asking(**constraints), ALL)


def test_choose_needs_candidates():
    with pytest.raises(InstructionError, match="no network to choose from"):
        choose(asking(), [])


def test_instructions_do_not_import_torch():
    code = (
        "import sys; from weightgen.instructions import VOCABULARY, choose, resolve, sentences; "
        "resolve('MNIST', VOCABULARY); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
