"""Scales and signs are found where they are exact, and nowhere else; `test_tracing` holds them against outputs."""

import pytest
import torch
from structure_networks import NETWORKS, Example, all_rescaled, change
from torch import nn
from torch.nn import functional

from weightgen.architecture import Architecture
from weightgen.structure import axis_groups
from weightgen.structure.tracing import trace_axes


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "gelu", "silu"])
@pytest.mark.parametrize("recipe", ["weightgen/mlp?hidden=8,6", "weightgen/cnn?channels=4,6&grid=3"])
def test_plain_stacks_have_the_traced_symmetries(recipe, activation):
    architecture = Architecture.parse(recipe).replace(activation=activation)
    traced = architecture.axes().groups
    plain = axis_groups(architecture.parameter_shapes(), activation)
    assert architecture.groups() == traced == tuple(plain)
    assert [(group.scales, group.signs) for group in traced] == [(group.scales, group.signs) for group in plain]


def symmetries(*between: nn.Module) -> tuple[list, list]:
    """Scales and signs of the one group of two linear layers with something between them."""
    module = nn.Sequential(nn.Linear(3, 4), *between, nn.Linear(4, 2))
    (group,) = trace_axes(module, (torch.randn(5, 3),)).groups
    names = [member.tensor for member in group.members]
    read = [[dict(zip(names, powers, strict=True)) for powers in kind] for kind in (group.scales, group.signs)]
    return read[0], read[1]


RELU = {"0.weight": 1, "0.bias": 1, "2.weight": -1}


@pytest.mark.parametrize(
    ("between", "scales", "signs"),
    [
        (nn.ReLU(), [RELU], []),
        (nn.LeakyReLU(), [RELU], []),
        (nn.Tanh(), [], [{"0.weight": 1, "0.bias": 1, "2.weight": 1}]),
        (nn.Identity(), [{"0.weight": 1, "0.bias": 1, "1.weight": -1}], None),
        (nn.GELU(), [], []),
        (nn.ReLU6(), [], []),
        (nn.Softplus(), [], []),
        (nn.Sigmoid(), [], []),
        (nn.Softmax(1), [], []),
    ],
)
def test_what_lies_between_decides(between, scales, signs):
    if isinstance(between, nn.Identity):
        found, flipped = symmetries()
        assert found == scales and len(flipped) == 1
    else:
        assert symmetries(between) == (scales, signs)


def test_a_batch_norm_keeps_the_scale_before_it_and_frees_sign_and_what_comes_after():
    scales, signs = symmetries(nn.BatchNorm1d(4), nn.ReLU())
    after = {"1.weight": 1, "1.bias": 1, "3.weight": -1}
    before = {"0.weight": 1, "0.bias": 1, "1.weight": 1, "1.running_mean": 1}
    assert [{name: power for name, power in each.items() if power} for each in scales] == [after]
    assert [{name: power for name, power in each.items() if power} for each in signs] == [before]


class Constant(nn.Module):
    """Two layers with a function between them that does not let scales pass."""

    def __init__(self, function) -> None:
        super().__init__()
        self.one, self.two, self.function = nn.Linear(3, 4), nn.Linear(4, 2), function

    def forward(self, features):
        return self.two(self.function(self.one(features).relu()))


@pytest.mark.parametrize(
    "function",
    [
        lambda hidden: hidden + 1,
        lambda hidden: hidden * hidden,
        lambda hidden: hidden / hidden.sum(1, keepdim=True).clamp(min=1),
        lambda hidden: hidden * hidden.mean(1, keepdim=True),
        lambda hidden: hidden.clamp(max=1),
        lambda hidden: hidden.masked_fill(hidden > 1, 0),
        lambda hidden: functional.pad(hidden, (0, 0, 1, 0), value=1.0),
        lambda hidden: hidden.add_(0.5),
        lambda hidden: torch.cat([hidden, torch.ones(1, 4)]),
        lambda hidden: functional.layer_norm(hidden, (4,)),
        lambda hidden: hidden.sigmoid() * hidden,
    ],
)
def test_no_scale_passes_what_is_not_homogeneous(function):
    module = Constant(function)
    graph = trace_axes(module, (torch.randn(5, 3),))
    assert not any(group.scales or group.signs for group in graph.groups)


def test_a_tensor_overwritten_by_a_product_scales_as_it_then_does():
    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.gain = nn.Linear(3, 4), nn.Linear(4, 2), nn.Parameter(torch.rand(4) + 0.5)

        def forward(self, features):
            hidden = self.one(features)
            hidden.mul_(self.gain)
            return self.two(hidden)

    torch.manual_seed(0)
    example = Example(Written(), (torch.randn(2, 3),))
    graph = trace_axes(example.module, example.arguments)
    assert change(example, all_rescaled(example.module.state_dict(), graph.groups)) <= 1e-10


def test_heads_may_scale_values_against_projections_and_queries_against_keys():
    groups = trace_axes(*_model("bert")).groups
    inner = [group for group in groups if group.kin is not None and group.scales]
    kinds = {
        tuple(zip((member.tensor.split(".")[-2] for member in g.members), g.scales[0], strict=True)) for g in inner
    }
    assert (("query", 1), ("query", 1), ("key", -1), ("key", -1)) in kinds
    assert (("value", 1), ("value", 1), ("dense", -1)) in kinds


def _model(name: str):
    example = NETWORKS[name]()
    return example.module, example.arguments, example.keywords, example.output
