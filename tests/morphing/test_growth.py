"""Net2Net: wider and deeper networks answer as before, and where they cannot, the reason is said."""

import pytest
import torch

from weightgen.checkpoint import Checkpoint
from weightgen.errors import ArchitectureError
from weightgen.morphing import Morph, morph
from weightgen.morphing.depths import logits

LENET = "weightgen/cnn?channels=6,16&kernel=5&input=1,28,28&grid=4"
RESNET = "weightgen/resnet?blocks=2,2,2&width=4"
BAR = 1e-4


def difference(before: Checkpoint, made: Morph) -> float:
    """The largest change of a logit on random inputs."""
    generator = torch.Generator().manual_seed(5)
    inputs = [
        torch.randn((2, *example.shape[1:]), generator=generator)
        if example.is_floating_point()
        else torch.randint(0, 90, (2, *example.shape[1:]), generator=generator)
        for example in before.architecture.example_inputs()
    ]
    with torch.no_grad():
        old, new = logits(before.build()(*inputs)), logits(made.checkpoint.build()(*inputs))
    assert old.std() > 1e-3
    return (old - new).abs().max().item()


@pytest.mark.parametrize(
    ("recipe", "change"),
    [
        (LENET, {"width": 1.3}),
        (LENET, {"depth": 2.0}),
        (RESNET, {"width": 1.3}),
        (RESNET, {"depth": 2.0}),
        ("timm/resnet18?channels=8,12,16,20&num_classes=10", {"width": 1.5, "depth": 1.5}),
    ],
)
def test_convolutional_networks_grow_exactly(make, recipe, change):
    before = make(recipe)
    made = morph(before, **change)
    assert made.method == "net2net" and made.checkpoint.parameters > before.parameters and not made.notes
    assert difference(before, made) <= BAR


@pytest.mark.parametrize("change", [{"width": 2.0}, {"depth": 2.0}])
@pytest.mark.parametrize("recipe", ["vit", "llama"])
def test_transformers_grow_exactly_by_whole_multiples(make, recipes, recipe, change):
    vit = "timm/vit_tiny_patch16_224?depth=2&embed_dim=24&img_size=32&num_classes=10"
    before = make(vit if recipe == "vit" else recipes[recipe])
    made = morph(before, **change)
    assert made.checkpoint.parameters > 1.2 * before.parameters and not made.notes
    assert difference(before, made) <= BAR


def test_between_multiples_only_inner_axes_of_a_transformer_grow(make, recipes):
    before = make(recipes["llama"])
    made = morph(before, width=1.5)
    shapes = made.checkpoint.architecture.parameter_shapes()
    assert shapes["model.layers.1.mlp.down_proj.weight"] == (32, 36)
    assert shapes["model.layers.1.self_attn.k_proj.weight"] == (24, 32)
    assert any("whole multiples only; nearest: 64" in note for note in made.notes)
    assert difference(before, made) <= BAR


@pytest.mark.parametrize("recipe", ["bert", "gpt2"])
def test_a_tied_stream_stays_and_its_heads_with_it(make, recipes, recipe):
    before = make(recipes[recipe])
    made = morph(before, width=2.0)
    shapes = before.architecture.parameter_shapes()
    grown = {name for name, shape in made.checkpoint.architecture.parameter_shapes().items() if shape != shapes[name]}
    assert grown and all(("mlp" in name or "intermediate" in name or ".output.dense" in name) for name in grown)
    assert any("tied" in note for note in made.notes)
    assert difference(before, made) <= BAR


def test_no_identity_stands_behind_a_norm(make, recipes):
    with pytest.raises(ArchitectureError, match="no block can be added that computes the identity"):
        morph(make(recipes["bert"]), depth=2.0)


def test_of_methods_that_only_shrink_none_grows(make):
    with pytest.raises(ArchitectureError, match="cannot make a network larger; got select; expected net2net"):
        morph(make(LENET), width=2.0, method="select")
    with pytest.raises(ArchitectureError, match="cannot make a network smaller"):
        morph(make(LENET), width=0.5, method="net2net")
