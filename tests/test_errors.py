import inspect
import pickle

import pytest

from weightgen import errors
from weightgen.errors import WeightgenError

NAMED = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, WeightgenError) and kind is not WeightgenError
]


def test_an_error_says_what_where_got_expected_remedy():
    error = WeightgenError("it broke", where="a/b", got=3, expected="at most 2", remedy="mend it")
    assert str(error) == "it broke; in a/b; got 3; expected at most 2; mend it"


def test_what_is_not_given_is_left_out():
    assert str(WeightgenError("it broke")) == "it broke"
    assert str(WeightgenError("it broke", got=0)) == "it broke; got 0"


def test_an_error_is_one_line_whatever_it_is_given():
    error = WeightgenError("it\nbroke", where="a\tb", got="first\r\n  second", remedy="mend\x0bit")
    assert str(error) == "it broke; in a b; got first second; mend it"


@pytest.mark.parametrize("kind", NAMED)
def test_every_named_error_is_documented_and_caught_as_one(kind):
    assert kind.__doc__
    with pytest.raises(WeightgenError, match="^it broke; in here$"):
        raise kind("it broke", where="here")


@pytest.mark.parametrize("kind", NAMED)
def test_an_error_survives_the_way_between_processes(kind):
    assert str(pickle.loads(pickle.dumps(kind("it broke", where="here")))) == "it broke; in here"
