import pytest
import torch
from structure_networks import NETWORKS, all_permuted, all_rescaled, change, traced
from torch import nn

from weightgen.structure.activations import correlations, match_activations
from weightgen.structure.tracing import trace_axes


def images(example, count: int = 24) -> torch.Tensor:
    return torch.randn(count, *example.arguments[0].shape[1:], generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["mlp", "cnn", "lenet", "resnet_a", "resnet18", "vit"])
def test_a_permuted_copy_comes_back_by_its_answers(name):
    example, graph = traced(name)
    first = {key: tensor.clone() for key, tensor in example.module.state_dict().items()}
    copy = NETWORKS[name]().module.eval()
    permuted = all_permuted(example, graph)
    copy.load_state_dict(permuted)
    alike = correlations(copy, example.module.eval(), graph.groups, images(example))
    assert alike and all(found.abs().max() <= 1 + 1e-5 for found in alike.values())
    matched = match_activations(graph.groups, permuted, first, alike)
    assert matched.keys() == first.keys()
    assert all(torch.equal(matched[key], first[key]) for key in first)


def test_signs_follow_the_answers():
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    graph = trace_axes(module, (torch.randn(1, 4),))
    state = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    changed = {key: tensor.float() for key, tensor in all_rescaled(state, graph.groups).items()}
    assert not torch.equal(changed["0.weight"], state["0.weight"])
    other = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    other.load_state_dict(changed)
    alike = correlations(other, module, graph.groups, torch.randn(50, 4))
    matched = match_activations(graph.groups, changed, state, alike)
    assert all(torch.allclose(matched[key], state[key]) for key in state)


@pytest.mark.parametrize("name", ["resnet_a", "vit"])
def test_a_stranger_keeps_its_function(name):
    example, graph = traced(name)
    reference = NETWORKS[name]().module.eval()
    alike = correlations(example.module.eval(), reference, graph.groups, images(example))
    matched = match_activations(graph.groups, example.module.state_dict(), reference.state_dict(), alike)
    assert change(example, matched) < 1e-10


def test_correlations_are_those_of_numpy():
    module, other = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2)), nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2))
    graph = trace_axes(module, (torch.randn(1, 4),))
    examples = torch.randn(600, 4)
    found = correlations(module, other, graph.groups, examples)
    assert list(found) == ["0"]
    both = torch.cat([module[0](examples), other[0](examples)], 1).detach().T
    torch.testing.assert_close(found["0"], torch.corrcoef(both)[:5, 5:], rtol=1e-4, atol=1e-5)


def test_a_unit_that_never_answers_is_like_no_other():
    module = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2))
    graph = trace_axes(module, (torch.randn(1, 4),))
    with torch.no_grad():
        module[0].weight[1] = 0
    found = correlations(module, module, graph.groups, torch.randn(50, 4))["0"]
    assert not found[1].any() and not found[:, 1].any() and found.isfinite().all()
    assert not module[0]._forward_hooks
