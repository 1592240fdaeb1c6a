import math

import pytest
import torch

from weightgen.architecture import Architecture
from weightgen.errors import UnknownNameError
from weightgen.generators.implicit import ImplicitConfig
from weightgen.generators.neumeta import by_importance, function_of, sizes_at
from weightgen.structure.resizing import resized_shapes

RESNET, CNN = "weightgen/resnet?width=4&blocks=1,1,1", "weightgen/cnn?channels=6,8"


def network(recipe: str):
    torch.manual_seed(1)
    architecture = Architecture.parse(recipe)
    module = architecture.build().eval()
    for name, tensor in module.state_dict().items():
        if name.endswith(("running_var", "running_mean")):
            tensor.uniform_(0.5, 1.5)
    return architecture, module


def answers(architecture: Architecture, tensors, images):
    module = architecture.build().eval()
    module.load_state_dict(tensors)
    return module(images)


@pytest.mark.parametrize("positions", ["nested", "spread"])
@pytest.mark.parametrize("recipe", [RESNET, CNN, "weightgen/mlp?hidden=7,5"])
def test_it_begins_as_the_checkpoint_and_grows_as_the_same_function(recipe, positions):
    architecture, module = network(recipe)
    images = torch.randn(4, *architecture.option("input"))
    function = function_of(architecture, module.state_dict(), ImplicitConfig(positions, hidden=8))
    with torch.no_grad():
        assert torch.allclose(answers(architecture, function(), images), module(images), atol=1e-5)
        for factor in (1.4, 2.0, 3.1):
            sizes = sizes_at(function.graph, factor)
            wider = architecture.resized(dict(enumerate(sizes)))
            assert torch.allclose(answers(wider, function(sizes), images), module(images), atol=1e-4)


@pytest.mark.parametrize("positions", ["nested", "spread"])
def test_shapes_are_those_of_the_resized_network(positions):
    architecture, module = network(RESNET)
    function = function_of(architecture, module.state_dict(), ImplicitConfig(positions, hidden=8))
    for factor in (0.1, 0.37, 0.5, 0.9, 1.7):
        sizes = sizes_at(function.graph, factor)
        found = {name: tuple(tensor.shape) for name, tensor in function(sizes).items()}
        assert found == resized_shapes(function.graph, dict(enumerate(sizes)))


def test_a_nested_network_is_the_beginning_of_a_larger_one():
    architecture, module = network(CNN)
    function = function_of(architecture, module.state_dict(), ImplicitConfig("nested", hidden=0))
    small, large = (function(sizes_at(function.graph, factor)) for factor in (0.5, 1.0))
    rows, columns = small["conv2.weight"].shape[:2]
    assert torch.equal(small["conv2.weight"], large["conv2.weight"][:rows, :columns])
    # What matters most comes first.
    sizes = large["conv1.weight"].abs().sum((1, 2, 3)) / large["conv1.weight"].abs().sum()
    assert sizes[:3].sum() > sizes[3:].sum()


def test_the_order_of_importance_is_that_of_all_tensors_together():
    architecture = Architecture.parse("weightgen/mlp?hidden=3&grid=1&input=1,8,8")
    tensors = {
        "hidden1.weight": torch.tensor([[1.0], [4.0], [1.0]]), "hidden1.bias": torch.tensor([9.0, 0.0, 0.0]),
        "head.weight": torch.tensor([[1.0, 1.0, 7.0]]).expand(10, 3), "head.bias": torch.zeros(10),
    }  # fmt: skip
    ordered = by_importance(tensors, architecture.axes())
    assert ordered["hidden1.weight"].flatten().tolist() == [1, 4, 1]
    assert ordered["head.weight"][0].tolist() == [7, 1, 1]
    assert ordered["hidden1.bias"].tolist() == [0, 0, 9]


def residual(function, sizes, noise=None):
    """What the perceptron adds, after its last layer was given values."""
    torch.manual_seed(0)
    for head in function.write.values():
        torch.nn.init.normal_(head.weight, std=1.0)
    with torch.no_grad():
        return function(sizes, noise)


def test_noise_moves_positions_only():
    architecture, module = network(CNN)
    function = function_of(architecture, module.state_dict(), ImplicitConfig("nested", hidden=16))
    plain = residual(function, function.full)
    one, same, other = (residual(function, function.full, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    for name, tensor in plain.items():
        assert torch.equal(one[name], same[name])
        assert not torch.equal(one[name], other[name])
        # Half a unit is a small step on a smooth function, the categories of tensors are far apart.
        assert (one[name] - tensor).norm() < 0.75 * (tensor - module.state_dict()[name]).norm() + 1e-3 or name in {
            "conv1.bias", "head.bias"
        }  # fmt: skip


def test_the_size_is_a_condition():
    architecture, module = network(CNN)
    function = function_of(architecture, module.state_dict(), ImplicitConfig("nested", hidden=16))
    small = residual(function, sizes_at(function.graph, 0.5))
    large = residual(function, function.full)
    rows, columns = small["conv2.weight"].shape[:2]
    assert not torch.allclose(small["conv2.weight"], large["conv2.weight"][:rows, :columns], atol=1e-3)


def test_gradients_reach_all_that_is_learned():
    architecture, module = network(RESNET)
    function = function_of(architecture, module.state_dict(), ImplicitConfig("nested", hidden=8))
    residual(function, function.full)
    sum(function(sizes_at(function.graph, 0.5))[name].square().sum() for name in function.learned).backward()
    assert all(parameter.grad is not None and parameter.grad.norm() > 0 for parameter in function.parameters())
    frozen = function_of(architecture, module.state_dict(), ImplicitConfig("nested", hidden=8, grid=False))
    assert {name.split(".")[0] for name, one in frozen.named_parameters() if one.requires_grad} == {
        "read", "middle", "category", "write"
    }  # fmt: skip


def test_sizes():
    graph = Architecture.parse(RESNET).axes()
    assert sizes_at(graph, 1.0) == tuple(group.size for group in graph.groups)
    assert min(sizes_at(graph, 0.01)) == 1
    for size, group in zip(sizes_at(graph, 0.5), graph.groups, strict=True):
        assert size == math.floor(0.5 * group.size + 0.5)
    with pytest.raises(UnknownNameError, match="choice of positions 'nestde'.*nested"):
        ImplicitConfig("nestde")
