"""Copies in another order, scale and sign come back, for networks of many kinds; other groups are left alone."""

import pytest
import torch
from structure_networks import all_permuted, all_rescaled, change, randomise, traced

from weightgen.structure import Aligner, aligned_distances, permuted
from weightgen.structure.alignment import flat
from weightgen.structure.nesting import nesting

COPIED = (
    "mlp", "cnn", "lenet", "resnet_a", "resnet18", "resnext50", "vit", "bert", "gpt2", "llama",
)  # fmt: skip


def batched(state: dict) -> dict:
    return {
        name: tensor[None].to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)
        for name, tensor in state.items()
    }


@pytest.mark.parametrize("name", COPIED)
def test_a_disguised_copy_comes_back(name):
    example, graph = traced(name)
    aligner = Aligner(graph.groups, reference=example.module.state_dict())
    copy = batched(all_rescaled(all_permuted(example, graph), graph.groups))
    size = flat(aligner.reference).norm()
    assert (flat(copy) - flat(aligner.reference)).norm() > 0.1 * size
    aligned = aligner.align(copy)
    assert (flat(aligned) - flat(aligner.reference)).norm() < 1e-5 * size
    assert change(example, {key: tensor[0] for key, tensor in aligned.items()}) < 1e-5


@pytest.mark.parametrize("name", ["resnet_a", "vit", "bert", "llama", "resnet18"])
def test_aligning_to_a_stranger_leaves_the_output(name):
    example, graph = traced(name)
    state = {key: tensor.clone() for key, tensor in example.module.state_dict().items()}
    randomise(example.module, seed=1)
    aligner = Aligner(graph.groups, reference=example.module.state_dict())
    example.module.load_state_dict(state)
    canonical = aligner.canonicalise(batched(state))
    aligned = aligner.match(canonical)
    for changed in (canonical, aligned):
        assert change(example, {key: tensor[0] for key, tensor in changed.items()}, torch.float32) < 1e-4
    nearer = [(flat(each) - flat(aligner.reference)).norm() for each in (canonical, aligned)]
    assert nearer[1] < nearer[0]


def test_many_networks_at_once_equal_one_at_a_time():
    example, graph = traced("resnet_a")
    states = []
    for seed in range(3):
        randomise(example.module, seed)
        states.append(batched(example.module.state_dict()))
    together = {key: torch.cat([state[key] for state in states]) for key in states[0]}
    aligner = Aligner(graph.groups, reference={key: tensor[0] for key, tensor in states[0].items()})
    aligned = aligner.align(together)
    for place, state in enumerate(states):
        alone = aligner.align(state)
        assert all(torch.allclose(alone[key][0], aligned[key][place], rtol=1e-5, atol=1e-6) for key in alone)
    distances = aligned_distances(together, together, graph.groups)
    assert distances.diagonal().max() < 1e-4 and distances.fill_diagonal_(1e9).min() > 1


def test_heads_are_found_whatever_the_order_within_them():
    example, graph = traced("vit")
    relations = nesting(graph.groups)
    heads = [number for number, families in enumerate(relations.families) if families]
    assert [graph.groups[number].size for number in heads] == [3, 3]
    state = example.module.state_dict()
    inner = [group for group in graph.groups if group.kin is not None]
    for group in (graph.groups[heads[0]], *inner):
        state = permuted(state, group, torch.arange(group.size).roll(1))
    aligner = Aligner(graph.groups, reference=example.module.state_dict())
    aligned = aligner.align(batched(state))
    assert (flat(aligned) - flat(aligner.reference)).norm() < 1e-4


def test_a_tensor_of_numbers_is_moved_and_not_compared():
    example, graph = traced("resnet18")
    state = batched(example.module.state_dict())
    counters = [name for name, tensor in state.items() if not tensor.is_floating_point()]
    aligned = Aligner(graph.groups, reference=example.module.state_dict()).align(state)
    assert counters and all(torch.equal(aligned[name], state[name]) for name in counters)
