import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weightgen.architecture import Architecture
from weightgen.evaluation.novelty import Reference, error_overlap, measure_novelty, token_replay
from weightgen.tasks import get_task
from weightgen.training.population import Run, Schedule, population_predictions, train_population

ARCHITECTURE = Architecture.parse("weightgen/mlp?hidden=8")
ZOO, FRESH = 10, 5


@functools.cache
def trained() -> tuple[dict, torch.Tensor]:
    """Independent networks that read digits, and which test examples each gets wrong."""
    task = get_task("digits")
    runs = [Run(seed, 0.02, 0.0) for seed in range(ZOO + FRESH)]
    tensors = train_population(ARCHITECTURE, task, runs, Schedule(200, 32))
    return tensors, errors_of(tensors)


def errors_of(tensors: dict) -> torch.Tensor:
    images, labels = get_task("digits").test()
    return population_predictions(ARCHITECTURE, tensors, images) != labels


def chosen(*numbers: int) -> tuple[dict, torch.Tensor]:
    tensors, errors = trained()
    return {name: tensor[list(numbers)] for name, tensor in tensors.items()}, errors[list(numbers)]


@functools.cache
def reference() -> Reference:
    return Reference.of(ARCHITECTURE, *chosen(*range(ZOO)))


def test_a_replayed_network_is_not_new():
    found = measure_novelty(reference(), *chosen(3, ZOO))
    assert found.distance_ratio[0] < 1e-5 and found.zoo_ratio[0] < 1e-5
    assert found.error_iou[0] == 1
    assert not found.novel_and_performant[0]
    assert found.accuracy[0] > 0.8


def test_a_permuted_and_rescaled_replay_is_not_new():
    tensors, _ = chosen(3)
    order = torch.tensor([3, 0, 7, 5, 1, 2, 6, 4])
    scale = torch.tensor([0.1, 3.0, 1.0, 7.0, 0.5, 2.0, 20.0, 0.3])
    disguised = {
        "hidden1.weight": tensors["hidden1.weight"][:, order] * scale[:, None],
        "hidden1.bias": tensors["hidden1.bias"][:, order] * scale,
        "head.weight": tensors["head.weight"][:, :, order] / scale,
        "head.bias": tensors["head.bias"],
    }
    assert sum((disguised[name] - tensors[name]).square().sum() for name in tensors) > 1
    found = measure_novelty(reference(), disguised, errors_of(disguised))
    assert found.distance_ratio[0] < 1e-5
    assert found.error_iou[0] == 1
    assert not found.novel_and_performant[0]


def test_independent_networks_are_new():
    found = measure_novelty(reference(), *chosen(*range(ZOO, ZOO + FRESH)))
    assert found.distance_ratio.min() > 0.8 and found.distance_ratio.max() < 1.25
    assert (found.distance_ratio <= found.zoo_ratio).all()
    assert found.error_iou.max() < 0.9
    # With ten networks the bars are rough, yet most independent ones must pass.
    assert found.novel_and_performant.sum() >= 3


def test_a_new_network_that_is_drawn_twice_counts_once():
    found = measure_novelty(reference(), *chosen(ZOO, ZOO + 1, ZOO))
    assert found.distance_ratio[0] == found.zoo_ratio[0] == found.zoo_ratio[2] > 0.8
    assert found.distance_ratio[2] < 1e-5 and found.sample_ratio[0] < 1e-5 and found.sample_ratio[2] < 1e-5
    assert found.sample_ratio[1] > 0.8
    assert found.error_iou[2] == 1 > found.error_iou[0]
    assert not found.novel_and_performant[2]


def test_neither_new_weights_nor_new_errors_are_enough():
    best = int(trained()[1][:ZOO].sum(1).argmin())
    # Both bars but one are met: a replay that errs like a fresh network, and fresh weights that err like a replay.
    samples, _ = chosen(best, ZOO, ZOO)
    found = measure_novelty(reference(), samples, trained()[1][[ZOO, best, ZOO]])
    assert found.distance_ratio[0] < 1e-5 and found.error_iou[0] <= reference().largest_overlap
    assert found.distance_ratio[1] >= 0.95 and found.error_iou[1] == 1
    assert found.accuracy.min() >= reference().accuracy - 0.01
    assert not found.novel_and_performant.any()
    assert measure_novelty(reference(), *chosen(ZOO)).novel_and_performant.all()


def test_a_network_that_does_not_work_is_not_performant():
    tensors, _ = chosen(ZOO)
    noise = torch.Generator().manual_seed(0)
    broken = {name: tensor + torch.randn(tensor.shape, generator=noise) for name, tensor in tensors.items()}
    found = measure_novelty(reference(), broken, errors_of(broken))
    assert found.distance_ratio[0] > 0.95 and found.accuracy[0] < 0.7
    assert not found.novel_and_performant[0]


def test_a_lone_sample_has_no_other():
    found = measure_novelty(reference(), *chosen(ZOO))
    assert found.sample_ratio.isinf().all()
    assert found.distance_ratio.shape == found.error_iou.shape == found.accuracy.shape == (1,)


def test_the_reference_knows_its_own_spread():
    errors = trained()[1][:ZOO]
    assert reference().accuracy == pytest.approx(1 - errors.double().mean().item())
    sets = [set(row.nonzero().flatten().tolist()) for row in errors]
    overlaps = [len(a & b) / len(a | b) for i, a in enumerate(sets) for b in sets[:i]]
    assert reference().largest_overlap == pytest.approx(max(overlaps))
    # A network measured against the others is as far away as they are from one another.
    others = [number for number in range(ZOO) if number != 4]
    found = measure_novelty(Reference.of(ARCHITECTURE, *chosen(*others)), *chosen(4))
    assert 0.8 < found.distance_ratio[0] < 1.25


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 12), st.integers(0, 100))
def test_overlap_of_errors_is_that_of_sets(first, second, examples, seed):
    random = torch.Generator().manual_seed(seed)
    left = torch.rand(first, examples, generator=random) < 0.3
    right = torch.rand(second, examples, generator=random) < 0.3
    found = error_overlap(left, right)
    assert found.shape == (first, second)
    for i, row in enumerate(left):
        for j, column in enumerate(right):
            one, other = set(row.nonzero().flatten().tolist()), set(column.nonzero().flatten().tolist())
            expected = len(one & other) / len(one | other) if one | other else 1.0
            assert found[i, j] == pytest.approx(expected)


def test_replayed_tokens_are_those_that_equal_one_network_in_every_level():
    training = torch.tensor([[[0, 0], [1, 1], [2, 2], [3, 3]], [[4, 4], [5, 5], [6, 6], [7, 7]]])
    samples = torch.tensor(
        [
            [[0, 0], [1, 1], [2, 2], [3, 3]],
            [[0, 0], [1, 1], [6, 6], [9, 9]],
            [[0, 4], [1, 5], [2, 6], [7, 7]],
            [[1, 1], [2, 2], [3, 3], [0, 0]],
        ]
    )
    assert token_replay(samples, training).tolist() == [1.0, 0.5, 0.25, 0.0]
