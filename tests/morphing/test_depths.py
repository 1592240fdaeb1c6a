"""Depth: which blocks are kept, and what stands on them."""

import pytest
import torch

from weightgen.errors import ArchitectureError
from weightgen.morphing import morph
from weightgen.morphing.depths import new_depths, stages


def test_dropped_blocks_are_evenly_spaced_and_the_first_of_a_stage_stays(make):
    before = make("weightgen/resnet?blocks=4,3&width=4&inner=1,2,3,4,5,6,7")
    made = morph(before, depth=0.6, method="select").checkpoint
    assert str(made.architecture) == "weightgen/resnet?blocks=2,2&inner=1,4,5,7&width=4"
    assert torch.equal(made.tensor("layer1.1.conv1.weight"), before.tensor("layer1.3.conv1.weight"))
    assert torch.equal(made.tensor("layer2.0.conv1.weight"), before.tensor("layer2.0.conv1.weight"))


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("weightgen/mlp?hidden=4,5,6", [("hidden", 3)]),
        ("weightgen/cnn?channels=4,5", [("conv", 2)]),
        ("timm/resnet18", [("layer1.", 2), ("layer2.", 2), ("layer3.", 2), ("layer4.", 2)]),
        ("timm/vit_tiny_patch16_224?depth=3", [("blocks.", 3)]),
    ],
)
def test_stages_are_found_by_their_names(make, recipe, expected):
    from weightgen.architecture import Architecture

    found = stages(Architecture.parse(recipe))
    assert [(stage.prefix, stage.blocks) for stage in found] == expected
    assert new_depths(found, 2.0) == [2 * blocks for _, blocks in expected]
    assert min(new_depths(found, 0.01)) == 1


def test_a_stack_of_one_width_loses_a_layer(make):
    before = make("weightgen/mlp?hidden=6,6,6")
    made = morph(before, depth=0.67, method="select").checkpoint
    assert str(made.architecture) == "weightgen/mlp?hidden=6,6"
    assert torch.equal(made.tensor("hidden2.weight"), before.tensor("hidden3.weight"))


def test_a_layer_of_another_width_cannot_be_dropped(make):
    with pytest.raises(ArchitectureError, match="do not fit one another"):
        morph(make("weightgen/cnn?channels=4,6"), depth=0.5)


def test_families_without_a_depth_and_resized_ones_are_named(make):
    with pytest.raises(ArchitectureError, match="the depth of this family cannot be changed"):
        morph(make("timm/test_efficientnet?num_classes=3"), depth=2)
    resized = morph(make("timm/resnet18?channels=8,8,8,8&num_classes=3"), width=0.5, method="slice").checkpoint
    with pytest.raises(ArchitectureError, match="change the depth first"):
        morph(resized, depth=2)
