import pytest

from weightgen.architecture import Architecture
from weightgen.errors import ArchitectureError
from weightgen.structure import AxisGroup, Member, axis_groups


def groups_of(recipe: str) -> list[AxisGroup]:
    return axis_groups(Architecture.parse(recipe).parameter_shapes())


def test_a_perceptron_has_a_group_for_each_hidden_layer():
    assert groups_of("weightgen/mlp?hidden=8,6") == [
        AxisGroup(8, (Member("hidden1.weight", 0), Member("hidden1.bias", 0), Member("hidden2.weight", 1))),
        AxisGroup(6, (Member("hidden2.weight", 0), Member("hidden2.bias", 0), Member("head.weight", 1))),
    ]


@pytest.mark.parametrize("grid", [1, 2, 3])
def test_a_channel_owns_its_flattened_feature_map(grid):
    assert groups_of(f"weightgen/cnn?channels=4,6&grid={grid}") == [
        AxisGroup(4, (Member("conv1.weight", 0), Member("conv1.bias", 0), Member("conv2.weight", 1))),
        AxisGroup(6, (Member("conv2.weight", 0), Member("conv2.bias", 0), Member("head.weight", 1, grid * grid))),
    ]


def test_layers_without_bias_have_groups_without_it():
    assert axis_groups({"a.weight": (5, 3), "b.weight": (2, 5), "b.bias": (2,)}) == [
        AxisGroup(5, (Member("a.weight", 0), Member("b.weight", 1)))
    ]


@pytest.mark.parametrize("recipe", ["weightgen/mlp?hidden=", "weightgen/cnn?channels="])
def test_a_single_layer_has_no_hidden_units(recipe):
    assert groups_of(recipe) == []


def test_a_network_with_other_layers_is_refused():
    with pytest.raises(ArchitectureError, match="plain stacks.*conv1.1.weight"):
        axis_groups(Architecture.parse("timm/test_resnet?num_classes=10").parameter_shapes())


@pytest.mark.parametrize(
    "shapes",
    [
        {"a.weight": (5, 3), "b.weight": (2, 7)},
        {"a.weight": (5, 3), "b.weight": (2, 10)},
        {"a.weight": (5, 3, 3, 3), "b.weight": (2, 10, 3, 3)},
        {"a.weight": (8, 3, 3, 3), "b.weight": (8, 1, 3, 3)},
        {"a.weight": (5, 3), "a.bias": (4,)},
        {"a.bias": (5,), "a.weight": (5, 3)},
        {"position": (1, 4, 8), "a.weight": (5, 3)},
    ],
)
def test_what_only_looks_like_a_stack_is_refused(shapes):
    with pytest.raises(ArchitectureError, match="plain stacks"):
        axis_groups(shapes)
