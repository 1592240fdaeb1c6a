"""The units of axis groups are what torch-pruning removes together, where it can trace a network."""

from collections import defaultdict

import pytest
import torch
import torch_pruning
from structure_networks import NETWORKS, Example
from torch import nn

from weightgen.structure import AxisGroup
from weightgen.structure.tracing import trace_axes

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Linear)
NORMS = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)
Places = dict[tuple[str, str], set[int]]
"""(layer, `out` or `in`) → indices; norms have outputs alone."""


def ours(example: Example, group: AxisGroup, unit: int) -> Places:
    found: Places = defaultdict(set)
    for member in group.members:
        layer = example.module.get_submodule(member.tensor.rpartition(".")[0])
        if isinstance(layer, (*CONVOLUTIONS, *NORMS)):
            side = "in" if isinstance(layer, CONVOLUTIONS) and member.axis == 1 else "out"
            found[member.tensor.rpartition(".")[0], side].update(member.indices(group.size)[unit].tolist())
    return found


def theirs(graph: torch_pruning.DependencyGraph, example: Example, group: AxisGroup, unit: int) -> Places:
    names = {module: name for name, module in example.module.named_modules()}
    layer = example.module.get_submodule(group.members[0].tensor.rpartition(".")[0])
    prune = (
        torch_pruning.prune_linear_out_channels
        if isinstance(layer, nn.Linear)
        else torch_pruning.prune_conv_out_channels
    )
    found: Places = defaultdict(set)
    for dependency, indices in graph.get_pruning_group(
        layer, prune, group.members[0].indices(group.size)[unit].tolist()
    ):
        target = dependency.target.module
        if isinstance(target, (*CONVOLUTIONS, *NORMS)):
            depthwise = isinstance(target, NORMS) or "depthwise" in dependency.handler.__name__
            side = "in" if "in_channels" in dependency.handler.__name__ and not depthwise else "out"
            found[names[target], side].update(indices)
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", ["mlp", "cnn", "lenet", "resnet18", "resnet50", "densenet121", "mobilenetv3", "efficientnet", "convnext"]
)
def test_a_unit_is_what_is_pruned_with_it(name):
    torch.manual_seed(0)
    example = NETWORKS[name]()
    groups = trace_axes(example.module, example.arguments).groups
    with torch.enable_grad():
        graph = torch_pruning.DependencyGraph().build_dependency(example.module.eval(), tuple(example.arguments))
    compared = 0
    for group in groups:
        layer = example.module.get_submodule(group.members[0].tensor.rpartition(".")[0])
        if isinstance(layer, CONVOLUTIONS) and group.members[0].axis == 0:
            for unit in (0, group.size - 1):
                assert ours(example, group, unit) == theirs(graph, example, group, unit)
                compared += 1
    assert compared >= min(len(groups), 4)
