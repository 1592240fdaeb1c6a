"""Which units methods keep, and that the layers after them make up for the others."""

import numpy
import pytest
import torch
from torch import nn

from weightgen.errors import ArchitectureError
from weightgen.generators.resizing import Source, methods
from weightgen.generators.resizing.values import unit_values
from weightgen.structure import AxisGraph, Member
from weightgen.structure.tracing import trace_axes
from weightgen.tasks import Task, get_task


def source(module: nn.Module, inputs: torch.Tensor, task: Task | None = None, **more) -> Source:
    return Source(module.state_dict(), module.eval(), trace_axes(module, (inputs,)), task, **more)


def stack(width: int = 6) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


IMAGE = torch.zeros(1, 1, 8, 8)


def kept(method: str, given: Source, size: int) -> list[int]:
    """Which rows of the first layer are left."""
    rows = methods()[method].resize(given, {0: size}).tensors["1.weight"]
    old = given.tensors["1.weight"]
    return [int((old == row).all(1).nonzero().item()) for row in rows]


@pytest.mark.parametrize("method", ["l1", "l2"])
def test_the_rows_of_greatest_norm_are_kept_in_their_order(method):
    module = stack()
    with torch.no_grad():
        module[1].weight[[4, 1]] *= 100
        module[3].weight[:, 0] *= 1e4
    assert kept(method, source(module, IMAGE), 2) == [1, 4]


def test_the_norm_of_a_group_counts_what_reads_a_unit_too():
    module = stack()
    with torch.no_grad():
        module[3].weight[:, 3] *= 1e4
    assert 3 in kept("group-norm", source(module, IMAGE), 1)


def test_what_the_loss_does_not_depend_on_goes_first_by_taylor():
    module = stack()
    with torch.no_grad():
        module[1].weight[2] *= 100
        module[3].weight[:, 2] = 0
        module[1].bias += 1
    assert 2 not in kept("taylor", source(module, IMAGE, get_task("digits"), examples=200), 5)
    with pytest.raises(ArchitectureError, match="looks at data"):
        kept("taylor", source(module, IMAGE), 5)


def test_selection_takes_evenly_spaced_units_and_slicing_the_first():
    given = source(stack(), IMAGE, seed=3)
    assert kept("select", given, 3) == [0, 2, 4]
    assert kept("slice", given, 3) == [0, 1, 2]
    drawn = kept("random", given, 3)
    assert drawn == kept("random", given, 3) == sorted(set(drawn))


def test_a_unit_has_its_rows_blocks_and_parts():
    tensor = torch.arange(24.0).view(4, 6)
    assert unit_values(tensor, Member("a", 1, 2), 3).shape == (3, 8)
    table = Member.of("a", 1, numpy.array([[5], [0]]), (0, 1, 3))
    assert unit_values(tensor, table, 2).tolist() == [[11, 17], [6, 12]]


@pytest.mark.parametrize("data", [True, False])
def test_a_copy_of_a_unit_can_go_without_loss_where_the_next_layer_is_repaired(data):
    module = stack()
    with torch.no_grad():
        for part in (module[1].weight, module[1].bias):
            part[5] = 2 * part[0]
        module[1].bias[[0, 5]] = 0
    task = get_task("digits")
    images = task.validation()[0]
    before = module(images)
    graph: AxisGraph = trace_axes(module, (IMAGE,))

    def error(repair: bool) -> float:
        given = Source(module.state_dict(), module, graph, task if data else None, examples=500, repair=repair)
        smaller = stack(5)
        smaller.load_state_dict(methods()["slice"].resize(given, {0: 5}).tensors)
        return (smaller(images) - before).abs().max().item()

    with torch.no_grad():
        assert error(True) < 0.1 * error(False)


def test_convolutions_are_repaired_at_every_place():
    torch.manual_seed(1)
    module = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)
    ).eval()
    with torch.no_grad():
        module[0].weight[5], module[0].bias[5] = module[0].weight[1] * 3, module[0].bias[1] * 3
    task = get_task("digits")
    given = Source(module.state_dict(), module, trace_axes(module, (IMAGE,)), task, examples=300, repair=True)
    made = methods()["slice"].resize(given, {0: 5}).tensors
    with torch.no_grad():
        expected = module.state_dict()["2.weight"].clone()
        expected[:, 1] += 3 * expected[:, 5]
        torch.testing.assert_close(made["2.weight"], expected[:, :5], rtol=0.05, atol=0.02)
