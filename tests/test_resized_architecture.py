"""Recipes of networks of another size: by the family's own options where it has them, else by the sizes of groups."""

import pytest

from weightgen.architecture import Architecture
from weightgen.checkpoint import Checkpoint
from weightgen.errors import ArchitectureError
from weightgen.structure.resizing import outermost, resized_shapes

LLAMA = "transformers/LlamaForCausalLM?hidden_size=32&num_hidden_layers=2&num_attention_heads=4&num_key_value_heads=2"
TINY = "&intermediate_size=24&vocab_size=99"


def halved(architecture: Architecture, factor: float = 0.5) -> dict[int, int]:
    axes = architecture.axes()
    return {
        number: max(1, round(axes.groups[number].size * factor)) for numbers in outermost(axes) for number in numbers
    }


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("weightgen/mlp?hidden=8,6", "weightgen/mlp?hidden=4,3"),
        ("weightgen/cnn?channels=8,6", "weightgen/cnn?channels=4,3"),
        ("weightgen/resnet?blocks=1,1,1", "weightgen/resnet?blocks=1,1,1&width=8"),
        (
            "timm/vit_small_patch16_224?depth=1&num_classes=10",
            "timm/vit_small_patch16_224?depth=1&embed_dim=192&mlp_ratio=4.0&num_classes=10&num_heads=3",
        ),
        (
            LLAMA + TINY,
            "transformers/LlamaForCausalLM?head_dim=8&hidden_size=16&intermediate_size=12&num_attention_heads=2"
            "&num_hidden_layers=2&num_key_value_heads=1&vocab_size=99",
        ),
        (
            "transformers/BertForMaskedLM?vocab_size=99&hidden_size=16&num_hidden_layers=1&num_attention_heads=4"
            "&intermediate_size=18",
            "transformers/BertForMaskedLM?hidden_size=8&intermediate_size=9&num_attention_heads=2&num_hidden_layers=1"
            "&vocab_size=99",
        ),
        (
            "transformers/GPT2LMHeadModel?vocab_size=99&n_embd=16&n_layer=1&n_head=4&bos_token_id=1&eos_token_id=1",
            "transformers/GPT2LMHeadModel?bos_token_id=1&eos_token_id=1&n_embd=8&n_head=2&n_inner=32&n_layer=1&vocab_size=99",
        ),
    ],
)  # fmt: skip
def test_the_options_of_the_family_say_the_size(recipe, expected):
    assert str(Architecture.parse(recipe).resized(halved(Architecture.parse(recipe)))) == expected


@pytest.mark.parametrize("recipe", ["timm/resnet18?channels=8,12,16,20", "timm/vit_tiny_patch16_224?depth=1", LLAMA])
def test_else_the_groups_say_it_and_the_recipe_builds(recipe, tmp_path):
    architecture = Architecture.parse(recipe if recipe != LLAMA else LLAMA + TINY)
    sizes = halved(architecture)
    if recipe == LLAMA:
        # One layer narrower than the other is beyond what the config can say.
        last = max(sizes)
        sizes = {last: sizes[last]}
    new = architecture.resized(sizes)
    assert "group_sizes=" in str(new) and Architecture.parse(str(new)) == new
    assert new.parameter_shapes() == resized_shapes(architecture.axes(), sizes)
    module = new.build()
    Checkpoint(new, module.state_dict()).save(tmp_path / "new.safetensors")
    rebuilt = Checkpoint.load(tmp_path / "new.safetensors").build()
    rebuilt(*new.example_inputs())


def test_a_resized_network_is_resized_again():
    once = Architecture.parse("timm/resnet18?channels=8,12,16,20")
    twice = once.resized(halved(once))
    again = twice.resized(halved(twice, 1.5))
    assert again.without_group_sizes()[0] == once and again.without_group_sizes()[1][0] == 48
    assert again.parameter_shapes() == resized_shapes(twice.axes(), halved(twice, 1.5))


def test_widths_of_the_residual_network_are_options():
    architecture = Architecture.parse("weightgen/resnet?blocks=2,1&widths=4,8&inner=3,5,2")
    shapes = architecture.parameter_shapes()
    assert shapes["layer1.1.conv1.weight"] == (5, 4, 3, 3) and shapes["layer2.0.conv2.weight"] == (8, 2, 3, 3)
    sizes = {number: group.size + 1 for number, group in enumerate(architecture.axes().groups)}
    assert str(architecture.resized(sizes)) == "weightgen/resnet?blocks=2,1&inner=4,6,3&width=5"
    with pytest.raises(ArchitectureError, match="none less than the one before"):
        Architecture.parse("weightgen/resnet?widths=4,3,8").build()


@pytest.mark.parametrize("sizes", ["3", "3,0", "3,3,3"])
def test_sizes_that_do_not_fit_the_groups_are_refused(sizes):
    with pytest.raises(ArchitectureError, match="size"):
        Architecture.parse(f"weightgen/mlp?hidden=8,6&group_sizes={sizes}").build()
