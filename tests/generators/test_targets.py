import pytest
import torch
from torch import nn

from weightgen.errors import UnknownNameError, WeightgenError
from weightgen.generators.targets import select
from weightgen.networks import convolutional_network


@pytest.fixture
def network():
    return convolutional_network((1, 8, 8), (4, 4), 10, "relu", 3, 2, 2)


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        ("conv*.weight", ["conv1.weight", "conv2.weight"]),
        (["head.*", "conv1.bias"], ["conv1.bias", "head.weight", "head.bias"]),
        (nn.Linear, ["head.weight", "head.bias"]),
        (lambda name, parameter: parameter.dim() == 1, ["conv1.bias", "conv2.bias", "head.bias"]),
        (None, ["conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias", "head.weight", "head.bias"]),
    ],
)
def test_selections(network, selection, names):
    assert list(select(network, selection)) == names


def test_a_pattern_that_matches_nothing_names_the_near_ones(network):
    with pytest.raises(UnknownNameError, match=r"'conv1.weigth'.*conv1.weight"):
        select(network, "conv1.weigth")
    with pytest.raises(UnknownNameError, match="type of layer 'BatchNorm2d'.*Conv2d"):
        select(network, nn.BatchNorm2d)
    with pytest.raises(WeightgenError, match="no parameter is selected"):
        select(network, lambda name, parameter: False)


def test_a_buffer_is_not_written():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    with pytest.raises(WeightgenError, match=r"'1.num_batches_tracked' is a buffer.*torch.int64"):
        select(network, "*.num_batches_tracked")
    assert list(select(network, nn.BatchNorm2d)) == ["1.weight", "1.bias"]


def test_shared_parameters_are_selected_whole():
    network = nn.ModuleDict({"embed": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False)})
    network["head"].weight = network["embed"].weight
    assert list(select(network)) == ["embed.weight"]
    with pytest.raises(WeightgenError, match=r"'head.weight' is shared with 'embed.weight', which is not selected"):
        select(network, "head.*")


def test_what_cannot_be_written():
    with pytest.raises(WeightgenError, match="without a shape yet; in weight"):
        select(nn.LazyLinear(3))
    with pytest.raises(WeightgenError, match="has no parameters; in ReLU"):
        select(nn.ReLU())
    whole = nn.Linear(2, 2)
    whole.codes = nn.Parameter(torch.zeros(3, dtype=torch.int8), requires_grad=False)
    with pytest.raises(WeightgenError, match="'codes' is no floating tensor; got torch.int8"):
        select(whole, "codes")
