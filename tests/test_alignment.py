import dataclasses

import pytest
import torch

from weightgen import Architecture, Card, Checkpoint, align
from weightgen.alignment import measured_alignment
from weightgen.errors import ArchitectureError, CorruptFileError, UnknownNameError
from weightgen.structure import permuted

CNN = Architecture.parse("weightgen/cnn?channels=4,6")


def network(architecture: Architecture = CNN, seed: int = 0, **card) -> Checkpoint:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Checkpoint(architecture, architecture.build().state_dict(), Card(**card))


def disguised(checkpoint: Checkpoint, scaled: bool = True) -> Checkpoint:
    """The same function in another order and scale."""
    state = checkpoint.state_dict()
    for group in checkpoint.architecture.groups():
        state = permuted(state, group, torch.arange(group.size).flip(0))
    if scaled:
        state["conv1.weight"], state["conv1.bias"] = state["conv1.weight"] * 3, state["conv1.bias"] * 3
        state["conv2.weight"] = state["conv2.weight"] / 3
    return Checkpoint(checkpoint.architecture, state, checkpoint.card)


@pytest.mark.parametrize("task", [None, "digits"])
def test_a_disguised_copy_becomes_the_reference(task):
    reference = network()
    found = measured_alignment(disguised(reference), reference, task)
    assert found.before > 1 and found.after < 1e-4 and found.groups == 2
    assert found.method == ("weights" if task is None else "activations")
    for name, tensor in reference.state_dict().items():
        torch.testing.assert_close(found.checkpoint.tensor(name), tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("recipe", ["weightgen/cnn?channels=4,6", "weightgen/mlp?activation=tanh&hidden=9,8",
                                    "weightgen/resnet?blocks=1,1&input=1,8,8&width=4"])  # fmt: skip
@pytest.mark.parametrize("task", [None, "digits"])
def test_the_function_of_a_stranger_stays(recipe, task):
    architecture = Architecture.parse(recipe)
    first, second = network(architecture, 0), network(architecture, 1)
    aligned = align(first, second, task)
    images = torch.rand(20, *architecture.option("input"))
    with torch.no_grad():
        expected, got = first.build()(images), aligned.build()(images)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_the_card_says_what_it_was_made_from():
    first, second = network(seed=1, task="digits", run="seven"), network(seed=2)
    aligned = align(first, second)
    assert aligned.card == dataclasses.replace(
        first.card, parents=(first.id, second.id), origin="aligned", made_with={"align": {"method": "weights"}}
    )


def test_only_what_is_scaled_needs_float32():
    def halved(checkpoint: Checkpoint) -> Checkpoint:
        return Checkpoint(
            checkpoint.architecture, {name: tensor.half() for name, tensor in checkpoint.state_dict().items()}
        )

    for activation, kind in (("gelu", torch.float16), ("tanh", torch.float16), ("relu", torch.float32)):
        architecture = CNN.replace(activation=activation)
        aligned = align(halved(network(architecture, 0)), halved(network(architecture, 1)))
        assert {tensor.dtype for tensor in aligned.state_dict().values()} == {kind}


def test_another_architecture_is_refused_by_the_first_tensor_that_differs():
    with pytest.raises(ArchitectureError, match=r"'conv2.weight'; got shape \[6, 4, 3, 3\]; expected shape \[8, 4, 3"):
        align(network(), network(Architecture.parse("weightgen/cnn?channels=4,8")))
    with pytest.raises(ArchitectureError, match=r"'conv3.weight'; got none; expected shape"):
        align(network(), network(Architecture.parse("weightgen/cnn?channels=4,6,6")))
    with pytest.raises(
        ArchitectureError, match=r"compute other things; got .*relu|compute other things; got weightgen"
    ):
        align(network(), network(CNN.replace(activation="tanh")))


def test_a_tensor_with_nan_is_named():
    state = network().state_dict()
    state["conv2.bias"] = state["conv2.bias"].index_fill(0, torch.tensor([1]), float("nan"))
    damaged = Checkpoint(CNN, state)
    with pytest.raises(CorruptFileError, match="'conv2.bias' of the network"):
        align(damaged, network())
    with pytest.raises(CorruptFileError, match="'conv2.bias' of the reference"):
        align(network(), damaged)


def test_an_unknown_architecture_and_an_unknown_task_are_refused():
    shapes = {name: tuple(tensor.shape) for name, tensor in network().state_dict().items()}
    unknown = Checkpoint(Architecture.unknown(shapes), network().state_dict())
    with pytest.raises(ArchitectureError, match="the architecture is unknown"):
        align(unknown, unknown)
    with pytest.raises(UnknownNameError, match="digits"):
        align(network(), network(seed=1), "digit")
