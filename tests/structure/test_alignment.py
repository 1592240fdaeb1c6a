import functools
import itertools

import numpy
import pytest
import torch

from weightgen.architecture import Architecture
from weightgen.structure import Aligner, aligned_distances, axis_groups, matching
from weightgen.structure.alignment import flat
from weightgen.training.population import initial, shared_logits

MLP = "weightgen/mlp?hidden=7,5"
CNN = "weightgen/cnn?channels=5,4&grid=2"
DEEP = "weightgen/mlp?hidden=5,5,5,5"
ACTIVATIONS = ("relu", "leaky_relu", "tanh", "gelu")


@functools.cache
def networks(recipe: str, activation: str) -> tuple:
    """An architecture, its groups, three networks of it, and an Aligner to the first of another three."""
    architecture = Architecture.parse(recipe).replace(activation=activation)
    groups = axis_groups(architecture.parameter_shapes())
    reference = {name: tensor[0] for name, tensor in initial(architecture, [9]).items()}
    return architecture, groups, initial(architecture, [0, 1, 2]), Aligner(groups, activation, reference)


def disguised(tensors: dict, groups: list, activation: str, seed: int) -> dict:
    """The same functions with hidden units in another order, scale and sign, written apart from the code under test."""
    random = numpy.random.default_rng(seed)
    out = {name: tensor.double().numpy().copy() for name, tensor in tensors.items()}
    for network in range(len(next(iter(out.values())))):
        for group in groups:
            order = random.permutation(group.size)
            factor = numpy.ones(group.size)
            if activation in ("relu", "leaky_relu"):
                factor = numpy.exp(random.normal(size=group.size))
            elif activation == "tanh":
                factor = random.choice([-1.0, 1.0], size=group.size)
            for member in group.members:
                index = (order[:, None] * member.block + numpy.arange(member.block)).ravel()
                values = numpy.take(out[member.tensor][network], index, axis=member.axis)
                applied = 1 / factor if member is group.members[-1] else factor
                shape = [1] * values.ndim
                shape[member.axis] = -1
                out[member.tensor][network] = values * applied.repeat(member.block).reshape(shape)
    return {name: torch.tensor(array, dtype=torch.float32) for name, array in out.items()}


def outputs(architecture: Architecture, tensors: dict) -> torch.Tensor:
    images = torch.randn(20, *architecture.option("input"), generator=torch.Generator().manual_seed(0))
    return shared_logits(architecture)(tensors, images)


@pytest.mark.parametrize("recipe", [MLP, CNN, DEEP])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_function_stays(recipe, activation):
    architecture, groups, tensors, aligner = networks(recipe, activation)
    tensors = disguised(tensors, groups, activation, 0)
    expected = outputs(architecture, tensors)
    for changed in (aligner.canonicalise(tensors), aligner.align(tensors)):
        torch.testing.assert_close(outputs(architecture, changed), expected, rtol=1e-4, atol=1e-5)
    assert not torch.equal(flat(aligner.align(tensors)), flat(tensors))


@pytest.mark.parametrize("recipe", [MLP, CNN, DEEP])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_disguised_copy_is_no_distance_away(recipe, activation):
    architecture, groups, tensors, aligner = networks(recipe, activation)
    copy = disguised(tensors, groups, activation, 1)
    torch.testing.assert_close(outputs(architecture, copy), outputs(architecture, tensors), rtol=1e-4, atol=1e-5)
    distances = aligned_distances(copy, tensors, groups, activation)
    apart = ~torch.eye(3).bool()
    assert distances.diagonal().max() < 1e-5
    assert distances[apart].min() > 0.5
    plain = (flat(copy) - flat(tensors)).norm(dim=1)
    assert plain.min() > 0.5
    torch.testing.assert_close(aligner.align(aligner.align(tensors)), aligner.align(tensors), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_aligning_brings_networks_nearer(activation):
    _, _, tensors, aligner = networks(MLP, activation)
    target = flat(aligner.reference)
    before = (flat(aligner.canonicalise(tensors)) - target).norm(dim=1)
    after = (flat(aligner.align(tensors)) - target).norm(dim=1)
    assert (after < before).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_many_at_once_equal_one_at_a_time(activation):
    _, _, tensors, aligner = networks(CNN, activation)
    together = aligner.align(tensors)
    for index in range(3):
        alone = aligner.align({name: tensor[index : index + 1] for name, tensor in tensors.items()})
        for name in tensors:
            torch.testing.assert_close(alone[name][0], together[name][index], rtol=1e-6, atol=1e-7)


def test_assignment_is_the_best_there_is():
    similarity = torch.randn(12, 5, 5, generator=torch.Generator().manual_seed(0))
    found = matching.assign(similarity)
    for matrix, order in zip(similarity, found, strict=True):
        best = max(
            itertools.permutations(range(5)), key=lambda trial: sum(matrix[row, trial[row]].item() for row in range(5))
        )
        assert tuple(order.tolist()) == best


def test_matching_one_layer_is_the_best_there_is():
    architecture = Architecture.parse("weightgen/mlp?hidden=4&activation=gelu")
    groups = axis_groups(architecture.parameter_shapes())
    first, second = initial(architecture, [0, 1, 2]), initial(architecture, [3])
    found = aligned_distances(first, second, groups, "gelu")
    for index in range(3):
        one = {name: tensor[index] for name, tensor in first.items()}
        trials = []
        for order in itertools.permutations(range(4)):
            moved = {
                "hidden1.weight": one["hidden1.weight"][list(order)],
                "hidden1.bias": one["hidden1.bias"][list(order)],
                "head.weight": one["head.weight"][:, list(order)],
                "head.bias": one["head.bias"],
            }
            trials.append(sum((moved[name] - second[name][0]).square().sum() for name in moved).sqrt())
        torch.testing.assert_close(found[index, 0], min(trials))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_distances_are_about_symmetric(activation):
    _, groups, tensors, _ = networks(MLP, activation)
    distances = aligned_distances(tensors, tensors, groups, activation)
    assert distances.diagonal().max() < 1e-5
    # Coordinate descent may end at different places from the two sides.
    torch.testing.assert_close(distances, distances.T, rtol=0.05, atol=1e-5)


def test_the_order_of_the_tensors_does_not_matter():
    _, groups, tensors, _ = networks(MLP, "relu")
    backwards = dict(reversed(tensors.items()))
    expected = aligned_distances(tensors, tensors, groups, "relu")
    torch.testing.assert_close(aligned_distances(tensors, backwards, groups, "relu"), expected)


def test_a_dead_unit_keeps_its_scale():
    _, groups, tensors, aligner = networks(MLP, "relu")
    dead = {name: tensor.clone() for name, tensor in tensors.items()}
    dead["hidden1.weight"][:, 2] = 0
    dead["hidden1.bias"][:, 2] = 0
    found = aligner.canonicalise(dead)
    assert all(tensor.isfinite().all() for tensor in found.values())
    assert not found["hidden1.weight"][:, 2].any()


def test_matching_needs_a_reference():
    _, groups, tensors, _ = networks(MLP, "relu")
    with pytest.raises(ValueError, match="without a reference"):
        Aligner(groups, "relu").match(tensors)
