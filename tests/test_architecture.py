import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weightgen.architecture import Architecture
from weightgen.errors import ArchitectureError, UnknownNameError
from weightgen.networks import ACTIVATIONS

sizes = st.integers(1, 40)
widths = st.lists(sizes, max_size=4).map(tuple)
multilayer = st.fixed_dictionaries(
    {},
    optional={
        "hidden": widths,
        "input": st.tuples(sizes, sizes, sizes),
        "classes": sizes,
        "activation": st.sampled_from(sorted(ACTIVATIONS)),
        "grid": st.integers(0, 5),
    },
).map(lambda options: Architecture.of("weightgen/mlp", **options))
convolutional = st.fixed_dictionaries(
    {}, optional={"channels": widths.filter(bool), "kernel": sizes, "stride": sizes, "grid": sizes, "classes": sizes}
).map(lambda options: Architecture.of("weightgen/cnn", **options))


@given(multilayer | convolutional)
@settings(deadline=None)
def test_text_gives_the_architecture_back(architecture):
    assert Architecture.parse(str(architecture)) == architecture


@given(multilayer | convolutional)
@settings(deadline=None, max_examples=30)
def test_shapes_are_those_of_the_module(architecture):
    shapes = architecture.parameter_shapes()
    module = architecture.build()
    assert list(shapes.items()) == [(name, tuple(tensor.shape)) for name, tensor in module.state_dict().items()]
    assert architecture.parameters == sum(parameter.numel() for parameter in module.parameters())


def test_a_default_is_left_out():
    assert str(Architecture.parse("weightgen/mlp?hidden=32&classes=10")) == "weightgen/mlp"
    assert Architecture.parse("weightgen/mlp?hidden=8").option("classes") == 10
    assert str(Architecture.parse("weightgen/mlp").replace(hidden=(8, 4))) == "weightgen/mlp?hidden=8,4"


def test_the_signature_tells_shapes_apart_and_nothing_else():
    one, other = Architecture.parse("weightgen/mlp?hidden=8"), Architecture.parse("weightgen/mlp?hidden=9")
    assert one.signature != other.signature
    assert one.signature == one.replace(activation="tanh").signature


@pytest.mark.parametrize(
    ("recipe", "error", "text"),
    [
        ("weightgen/mpl", UnknownNameError, "weightgen/mlp"),
        ("weightgen/mlp?hiden=3", UnknownNameError, "hidden"),
        ("weightgen/mlp?activation=rellu", UnknownNameError, "relu"),
        ("weightgen/mlp?hidden", ArchitectureError, "option=value"),
        ("weightgen/mlp?hidden=3&hidden=4", ArchitectureError, "once"),
        ("weightgen/mlp?hidden=wide", ArchitectureError, "wrong kind"),
        ("weightgen/mlp?hidden=0", ArchitectureError, "at least 1"),
        ("weightgen/mlp?hidden=-4,3", ArchitectureError, "at least 1"),
        ("weightgen/mlp?classes=99999999999", ArchitectureError, "beyond all bounds"),
        ("weightgen/mlp?input=8,8", ArchitectureError, "channels,height,width"),
        ("weightgen/mlp?classes=true", ArchitectureError, "wrong kind"),
        ("timm/resnet18?checkpoint_path=some.pth", ArchitectureError, "no files or downloads"),
        ("timm/resnet18?pretrained=true", ArchitectureError, "no files or downloads"),
    ],
)
def test_a_wrong_recipe_is_named(recipe, error, text):
    with pytest.raises(error, match=text):
        Architecture.parse(recipe)


def test_a_timm_model_by_name():
    architecture = Architecture.parse("timm/test_vit?num_classes=3")
    assert architecture.build()(torch.zeros(1, 3, 160, 160)).shape == (1, 3)
    assert architecture.parameter_shapes()["head.weight"][0] == 3
    assert Architecture.parse(str(architecture)) == architecture


def test_wrong_timm_names_and_options_are_named():
    with pytest.raises(UnknownNameError, match="resnet18"):
        Architecture.parse("timm/resnet81").parameter_shapes()
    with pytest.raises(ArchitectureError, match="cannot build"):
        Architecture.parse("timm/resnet18?colour=3").parameter_shapes()
