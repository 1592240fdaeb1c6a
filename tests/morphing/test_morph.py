"""morph(): targets, what stands on the Card, and input that cannot be."""

import pytest
import torch

from weightgen.architecture import Architecture
from weightgen.checkpoint import Checkpoint
from weightgen.errors import ArchitectureError, UnknownNameError
from weightgen.generators.resizing import methods
from weightgen.morphing import morph, save
from weightgen.morphing.counting import count_macs
from weightgen.tasks import evaluate, get_task

RESNET = "weightgen/resnet?blocks=1,1,1&width=8"
CNN = "weightgen/cnn?channels=8,16"
SHRINKING = ["group-norm", "l1", "l2", "prune", "random", "select", "slice", "taylor"]


def test_all_methods_are_known():
    assert [name for name in methods() if methods()[name].shrinks] == SHRINKING
    assert all(methods()[name].address.startswith("https://") for name in methods())


@pytest.mark.parametrize("method", SHRINKING)
def test_a_trained_network_is_halved_by_every_method(digits, method):
    made = morph(digits, width=0.5, method=method, task="digits", seed=3)
    assert str(made.checkpoint.architecture) == "weightgen/resnet?blocks=1,1&input=1,8,8&width=4"
    card, before = made.checkpoint.card, evaluate(digits.build(), get_task("digits"))["metrics"]
    assert card.parents == (digits.id,) and card.origin == "morphed" and card.task == "digits"
    assert card.made_with["before"] == {
        "parameters": digits.parameters, "macs": count_macs(digits.architecture), "metrics": before
    }  # fmt: skip
    assert card.made_with["recalibrated"] == "data" and card.made_with["repair"] == (method == "prune")
    assert card.metric("accuracy") == evaluate(made.checkpoint.build(), get_task("digits"))["metrics"]["accuracy"]
    assert made.macs < 0.5 * made.before["macs"]


def test_pruning_with_repair_keeps_more_than_chance_leaves(digits):
    def accuracy(method: str, **more) -> float:
        return morph(digits, width=0.5, method=method, task="digits", **more).metrics["accuracy"]

    assert accuracy("taylor", repair=True) > max(accuracy("taylor", repair=False), accuracy("random")) > 0.12


def test_training_steps_follow_and_the_same_seed_gives_the_same_network(digits):
    def made(**more):
        return morph(digits, width=0.5, method="select", task="digits", finetune_steps=30, seed=1, **more)

    first, again, taught = made(), made(), made(distil=True)
    assert first.checkpoint.id == again.checkpoint.id != taught.checkpoint.id
    untrained = morph(digits, width=0.5, method="select", task="digits", seed=1)
    assert min(first.metrics["accuracy"], taught.metrics["accuracy"]) > untrained.metrics["accuracy"]
    assert first.checkpoint.card.made_with["examples_seen"] == 30 * 128


def test_without_data_norms_are_estimated_and_that_is_said(digits):
    made = morph(digits, width=0.75, method="select")
    plain = morph(digits, width=0.75, method="select", recalibrate="none")
    assert made.checkpoint.card.made_with["recalibrated"] == "synthetic" and made.metrics == {}
    assert made.notes == ("no task was named: norms were estimated on noise, not measured on data",)
    with torch.no_grad():
        means = [made.checkpoint.state_dict()["bn1.running_mean"], plain.checkpoint.state_dict()["bn1.running_mean"]]
    # The first norm reads a convolution of the images, from which nothing was taken.
    torch.testing.assert_close(*means)
    assert not torch.equal(
        made.checkpoint.tensor("layer2.0.bn1.running_var"), plain.checkpoint.tensor("layer2.0.bn1.running_var")
    )


@pytest.mark.parametrize("budget", ["params", "macs"])
def test_a_budget_is_used_up_and_not_exceeded(make, budget):
    before = make(RESNET)
    target = (before.parameters if budget == "params" else count_macs(before.architecture)) // 3
    made = morph(before, **{budget: target}, method="slice")
    used = made.checkpoint.parameters if budget == "params" else made.macs
    assert 0.85 * target < used <= target


def test_a_network_becomes_like_another(make):
    before = make(RESNET)
    other = Architecture.parse("weightgen/resnet?blocks=2,2,2&widths=6,9,11&inner=3,4,5,6,7,8")
    assert morph(morph(before, depth=2).checkpoint, like=other, method="select").checkpoint.architecture == other
    with pytest.raises(ArchitectureError, match="cannot get the shapes"):
        morph(before, like="weightgen/resnet?blocks=1,1,1&classes=7")


def test_layers_by_name_to_be_ignored_and_rounded(make):
    made = morph(make(RESNET), width={"layer3.*": 0.5}, method="slice").checkpoint.architecture
    assert dict(made.options)["inner"] == (8, 16, 16)
    made = morph(make(RESNET), width=0.4, ignore=["layer2.0.conv1"], method="slice", round_to=4).checkpoint.architecture
    # Every group that the layer reads or writes stays: the first stage's channels and its own.
    assert dict(made.options)["widths"][0] == 8 and dict(made.options)["inner"][1] == 16
    assert all(size % 4 == 0 for size in dict(made.options)["inner"])


@pytest.mark.parametrize("recipe", ["llama", "bert", "gpt2"])
def test_language_models_are_written_for_from_pretrained(make, recipes, recipe, tmp_path):
    import transformers

    made = morph(make(recipes[recipe]), width=0.5, depth=0.5, method="select").checkpoint
    save(made, tmp_path / "half")
    loaded = getattr(transformers, made.architecture.family.split("/")[1]).from_pretrained(tmp_path / "half")
    words = torch.arange(6)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(words).logits, made.build()(words).logits)
    assert Checkpoint.load(tmp_path / "half/weightgen.safetensors").id == made.id


def test_a_width_that_heads_do_not_make_up_is_refused_with_the_nearest(make, recipes):
    with pytest.raises(ArchitectureError, match="expected a width of 8 with 2 heads, the nearest valid size"):
        morph(make(recipes["bert"]), width={"bert.embeddings.LayerNorm": 0.56}, method="select")


@pytest.mark.parametrize("width", [0, -0.5, float("nan"), float("inf"), {"conv1": 0}])
def test_widths_must_be_above_zero(make, width):
    with pytest.raises(ArchitectureError, match="a width must be above 0"):
        morph(make(CNN), width=width)


def test_no_group_is_left_empty(make):
    made = morph(make(CNN), width=0.01, method="l1").checkpoint.architecture
    assert str(made) == "weightgen/cnn?channels=1,1"
    with pytest.raises(ArchitectureError, match="no size has so few parameters; got 3; expected at least"):
        morph(make(CNN), params=3)
    with pytest.raises(ArchitectureError, match="a depth must be above 0"):
        morph(make(RESNET), depth=0)


def test_a_task_with_other_classes_is_refused(digits):
    for measure in (True, False):
        with pytest.raises(ArchitectureError, match=r"classes; in digits/3v8; got 10; expected 2"):
            morph(digits, width=0.5, task="digits/3v8", measure=measure)


def test_without_a_recipe_the_error_says_how_to_name_one(make):
    tensors = make(CNN).state_dict()
    unknown = Checkpoint(Architecture.unknown({name: tuple(one.shape) for name, one in tensors.items()}), tensors)
    with pytest.raises(ArchitectureError, match="name its architecture, as in --architecture"):
        morph(unknown, width=0.5)


def test_wrong_names_and_contradictions_are_refused(make):
    with pytest.raises(UnknownNameError, match="unknown method of resizing 'selct'; expected .* select"):
        morph(make(CNN), width=0.5, method="selct")
    with pytest.raises(UnknownNameError, match="unknown layer with an axis group 'conv9'"):
        morph(make(CNN), width={"conv9": 0.5})
    with pytest.raises(ArchitectureError, match=r"got --width and --params"):
        morph(make(CNN), width=0.5, params=100)
    with pytest.raises(ArchitectureError, match="'taylor' looks at data; name the task"):
        morph(make(CNN), width=0.5, method="taylor")


def test_layers_that_cannot_be_resized_are_listed(make):
    made = morph(
        make("timm/vit_tiny_patch16_224?depth=1&embed_dim=24&img_size=32&num_classes=10"), width=0.5, method="l1"
    )
    listed = {axis for axes in made.fixed.values() for axis in axes}
    assert "patch_embed.proj.weight[2]" not in listed and "head.weight[0]" not in listed
    assert "pos_embed[1]" in listed
