import pytest
import torch

from weightgen.errors import MissingDataError, UnknownNameError
from weightgen.formats import opening
from weightgen.formats.opening import open_network


def test_a_recipe_is_a_network_of_random_weights_and_says_so(monkeypatch):
    monkeypatch.setattr(opening, "HUB", ("127.0.0.1", 9))  # nobody answers there
    first, again = open_network("timm/resnet10t"), open_network("timm/resnet10t")
    assert first.card.origin == "random" and str(first.architecture) == "timm/resnet10t"
    assert first.id == again.id
    assert open_network("weightgen/mlp?hidden=4").card.origin == "random"


def test_one_of_several_is_named(tmp_path):
    path = tmp_path / "two.pt"
    states = {
        f"model_{part}_state_dict": {"weight": torch.full((2, 3), fill)} for part, fill in (("a", 1.0), ("b", 2.0))
    }
    torch.save(states, path)
    with pytest.raises(UnknownNameError, match="one of: a, b.*--part"):
        open_network(path)
    assert open_network(path, "b").tensor("weight")[0, 0] == 2.0
    with pytest.raises(UnknownNameError):
        open_network(path, "c")


def test_what_is_not_there(tmp_path):
    with pytest.raises(MissingDataError):
        open_network(tmp_path / "none.pt")
