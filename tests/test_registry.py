import pytest

from weightgen.errors import DuplicateNameError, UnknownNameError
from weightgen.registry import Registry, unknown_name


@pytest.fixture
def registry():
    registry: Registry[int] = Registry("fruit")
    for number, name in enumerate(["pear", "apple", "quince"]):
        registry.add(name, number)
    return registry


def test_entries_are_found_and_listed_in_order(registry):
    assert registry["apple"] == 1
    assert "pear" in registry and "plum" not in registry
    assert list(registry) == ["apple", "pear", "quince"]


def test_a_decorator_registers_and_gives_the_thing_back():
    registry = Registry("maker")

    @registry.register("one")
    def make():
        return 1

    assert registry["one"] is make and make() == 1


def test_a_name_is_given_once(registry):
    with pytest.raises(DuplicateNameError, match="the fruit 'pear' is registered already"):
        registry.add("pear", 9)
    assert registry["pear"] == 0


def test_a_wrong_name_suggests_the_near_ones(registry):
    with pytest.raises(UnknownNameError, match="unknown fruit 'aple'; expected a name near to it such as: apple"):
        registry["aple"]


def test_a_name_near_to_none_lists_what_there_is():
    assert str(unknown_name("fruit", "xyz", ["b", "a"])) == "unknown fruit 'xyz'; expected one of: a, b"
    assert str(unknown_name("fruit", "xyz", [], remedy="plant one")).endswith("one of: none; plant one")


def test_a_long_list_is_cut():
    text = str(unknown_name("number", "?", [f"n{index:03}" for index in range(100)]))
    assert "n011" in text and "n012" not in text
