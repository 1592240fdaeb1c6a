"""Resized tensors hold the right values, and a rebuilt module computes with them what the old one computed."""

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from structure_networks import NETWORKS, Example, random_orders, randomise

from weightgen.errors import ArchitectureError
from weightgen.structure import AxisGraph, AxisGroup, Member, permuted
from weightgen.structure.rebuilding import resize_module
from weightgen.structure.resizing import even_selections, gathers, kin_of, outermost, resized, resized_shapes
from weightgen.structure.tracing import trace_axes


def traced(name: str) -> tuple[Example, AxisGraph]:
    example = NETWORKS[name]()
    return example, trace_axes(example.module, example.arguments, example.keywords, example.output)


def graph(*groups: AxisGroup, **shapes: tuple[int, ...]) -> AxisGraph:
    return AxisGraph(groups, {}, shapes)


def outer_sizes(axes: AxisGraph, factor: float) -> dict[int, int]:
    """Sizes of heads and channels, but not of the places within them."""
    return {
        number: max(1, round(axes.groups[number].size * factor)) for numbers in outermost(axes) for number in numbers
    }


@pytest.mark.parametrize("name", ["lenet", "resnet_a", "mixed", "densenet121", "shufflenet", "vit", "llama", "unet"])
def test_a_selection_of_all_units_in_another_order_is_a_permutation(name):
    example, axes = traced(name)
    expected = actual = example.module.state_dict()
    for number, (group, order) in enumerate(zip(axes.groups, random_orders(axes.groups), strict=True)):
        alone = AxisGraph((AxisGroup(group.size, group.members),), {}, axes.shapes)
        expected = permuted(expected, group, order)
        actual = resized(actual, alone, {0: order})
        assert all(torch.equal(actual[one], expected[one]) for one in expected), number


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_new_units_are_the_selected_ones_in_blocks_tables_and_parts(units):
    table = numpy.array([[0, 10], [2, 12], [4, 14], [6, 16], [8, 18]])
    members = (
        Member("rows", 0),
        Member("flat", 1, 3),
        Member.of("both", 0, table),
        Member("part", 1, within=(0, 2, 4)),
    )
    tensors = {
        "rows": torch.randn(5), "flat": torch.randn(2, 15), "both": torch.arange(20), "part": torch.randn(4, 5)
    }  # fmt: skip
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    new = resized(tensors, graph(AxisGroup(5, members), **shapes), {0: units})
    assert torch.equal(new["rows"], tensors["rows"][units])
    assert torch.equal(new["flat"].view(2, -1, 3), tensors["flat"].view(2, 5, 3)[:, units])
    assert torch.equal(new["part"][2:], tensors["part"][2:, units])
    values = new["both"].tolist()
    assert [one for one in values if one % 2 == 0] == [2 * one for one in units] + [10 + 2 * one for one in units]
    assert {name: tuple(tensor.shape) for name, tensor in new.items()} == resized_shapes(
        graph(AxisGroup(5, members), **shapes), {0: len(units)}
    )


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(1, 9))
def test_heads_and_the_places_within_them_are_resized_together(heads, places):
    tensor = torch.arange(12)
    inner = [AxisGroup(4, (Member.of("a", 0, numpy.arange(4)[:, None] + 4 * head),), kin=0) for head in range(3)]
    axes = graph(AxisGroup(3, (Member("a", 0, 4),)), *inner, a=(12,))
    sizes = {0: heads, 1: places, 2: places, 3: places}
    expected = tensor.view(3, 4)[even_selections(axes, sizes)[0]][:, even_selections(axes, sizes)[1]]
    assert torch.equal(resized({"a": tensor}, axes, even_selections(axes, sizes))["a"], expected.flatten())


def test_both_sides_of_a_padded_shortcut_keep_their_share():
    sides = AxisGroup(6, (Member.of("a", 0, numpy.array([[0], [1], [2], [7], [8], [9]])),))
    middle = AxisGroup(4, (Member.of("a", 0, numpy.arange(3, 7)[:, None]),))
    found = gathers(graph(sides, middle, a=(10,)), {0: [0, 2, 4, 5, 3], 1: [0, 2]})["a"].indices(0)
    assert found.tolist() == [0, 2, 3, 5, 8, 9, 7]


@pytest.mark.parametrize("factor", [0.5, 1.5])
@pytest.mark.parametrize(
    "name",
    ["lenet", "resnet18", "resnext50", "densenet121", "mobilenetv3", "convnext", "vit", "swin", "mixer", "nfnet",
     "torchvision_resnet18", "bert", "llama", "whisper"],
)  # fmt: skip
def test_a_module_of_another_size_runs_and_has_the_shapes_foretold(name, factor):
    example, axes = traced(name)
    sizes = outer_sizes(axes, factor)
    resize_module(example.module.eval(), axes, sizes)
    shapes = {name: tuple(tensor.shape) for name, tensor in example.module.state_dict().items()}
    assert shapes == resized_shapes(axes, sizes)
    with torch.no_grad():
        example.module(*example.arguments, **example.keywords)


@pytest.mark.parametrize("name", ["lenet", "resnet18", "resnext50", "densenet121", "mobilenetv3"])
def test_without_units_that_do_nothing_a_network_answers_the_same(name):
    """Units can go whose values nobody reads: their outgoing weights are zero in the old network."""
    example, axes = traced(name)
    randomise(example.module)
    sizes = outer_sizes(axes, 0.5)
    selections = even_selections(axes, sizes)
    state = {name: tensor.clone() for name, tensor in example.module.state_dict().items()}
    modules = dict(example.module.named_modules())
    for number, selection in selections.items():
        gone = numpy.setdiff1d(numpy.arange(axes.groups[number].size), selection)
        for member in axes.groups[number].members:
            reader = modules.get(member.tensor.rpartition(".")[0])
            reads = isinstance(reader, (torch.nn.Linear, torch.nn.Conv2d)) and member.axis == 1
            if reads and member.within is None:
                columns = member.indices(axes.groups[number].size)[gone].ravel()
                state[member.tensor].index_fill_(1, torch.from_numpy(columns), 0.0)
    example.module.load_state_dict(state)
    with torch.no_grad():
        before = example.module.eval()(*example.arguments)
        resize_module(example.module, axes, sizes)
        example.module.load_state_dict(resized(state, axes, selections))
        after = example.module(*example.arguments)
    assert before.abs().max() > 1e-3
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5 * float(before.abs().max()))


def test_kin_stand_together_and_what_lies_within_others_is_not_outermost():
    _, axes = traced("llama")
    assert sum(map(len, kin_of(axes))) == len(axes.groups)
    first = [axes.groups[numbers[0]].members[0].tensor for numbers in outermost(axes)]
    assert [name.split(".")[-2] for name in first] == ["embed_tokens", "q_proj", "gate_proj", "q_proj", "gate_proj"]


def test_sizes_that_cannot_be_are_named():
    axes = graph(AxisGroup(3, (Member("a", 0),), kin=0), AxisGroup(3, (Member("b", 0),), kin=0), a=(3,), b=(3,))
    with pytest.raises(ArchitectureError, match=r"at least 1; in the 3 units of a\[0\]; got 0"):
        resized_shapes(axes, {0: 0, 1: 0})
    with pytest.raises(ArchitectureError, match=r"need one size; in 2 groups along a\[0\]; got \[2, 3\]"):
        resized_shapes(axes, {0: 2})
    with pytest.raises(ArchitectureError, match="not there"):
        gathers(axes, {0: [3], 1: [0]})
