import itertools

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weightgen.architecture import Architecture
from weightgen.structure import AxisGroup
from weightgen.structure.axes import Member
from weightgen.structure.ordering import path_length, shortest_path, smooth, unit_distances


def shortest_of_all(distance: numpy.ndarray) -> float:
    """By brute force; a path and its reverse are one."""
    orders = (order for order in itertools.permutations(range(len(distance))) if order[0] <= order[-1])
    return min(path_length(distance, numpy.array(order)) for order in orders)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(0, 10**6))
def test_small_paths_are_the_shortest(size, seed):
    points = numpy.random.RandomState(seed).rand(size, 3)
    distance = numpy.abs(points[:, None] - points[None]).sum(2)
    path = shortest_path(distance)
    assert sorted(path) == list(range(size))
    assert path_length(distance, path) <= 1.02 * shortest_of_all(distance) + 1e-12


def test_eight_units_are_in_the_best_order():
    points = numpy.random.RandomState(3).rand(8, 4)
    distance = numpy.abs(points[:, None] - points[None]).sum(2)
    assert path_length(distance, shortest_path(distance)) == pytest.approx(shortest_of_all(distance))


def test_points_on_a_line_are_put_in_a_row():
    # Far nearer than 1, where a solver of integers sees no distance at all.
    places = numpy.random.RandomState(0).permutation(60) * 1e-3
    path = shortest_path(numpy.abs(places[:, None] - places[None]))
    assert set(numpy.diff(places[path]).round(6)) in ({0.001}, {-0.001})


@pytest.mark.parametrize("recipe", ["weightgen/resnet?width=4&blocks=1,2", "weightgen/cnn", "weightgen/mlp?hidden=9,7"])
def test_smoothing_shortens_and_changes_no_answer(recipe):
    torch.manual_seed(0)
    architecture = Architecture.parse(recipe)
    module = architecture.build().eval()
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
    images = torch.randn(3, *architecture.example_inputs()[0].shape[1:])
    before = module(images)
    done = smooth(module.state_dict(), architecture.axes().groups, ignore=("running_mean", "running_var"))
    module.load_state_dict(done.tensors)
    assert torch.allclose(module(images), before, atol=1e-4)
    assert all(after <= old for old, after in zip(done.before, done.after, strict=True))
    assert sum(done.after) < 0.99 * sum(done.before)


def test_distances_are_those_of_all_slices_together():
    group = AxisGroup(3, (Member("a", 0), Member("b", 1, block=2), Member("c", 0, within=None)))
    tensors = {"a": torch.randn(3, 2), "b": torch.randn(4, 6), "c": torch.arange(3)}
    for power in (1, 2):
        distance = unit_distances(tensors, group, power)
        slices = torch.cat([tensors["a"][2] - tensors["a"][0], (tensors["b"][:, 4:] - tensors["b"][:, :2]).flatten()])
        assert distance[0, 2] == pytest.approx(slices.norm(p=power).item(), rel=1e-5)
    # Tensors that count something, as norms do, say nothing of how alike units are.
    assert unit_distances({"c": torch.arange(3)}, AxisGroup(3, (Member("c", 0),))).max() == 0
