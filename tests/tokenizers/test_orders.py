import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from weightgen.architecture import Architecture
from weightgen.errors import ArchitectureError
from weightgen.kernels import gather_tokens, scatter_tokens
from weightgen.structure import AxisGroup, Member, axis_groups
from weightgen.tokenizers.layout import Layout, layout_of
from weightgen.tokenizers.orders import permuted_table

NETWORKS = 3


def permuted(tensors: dict, groups: list[AxisGroup], orders: list[torch.Tensor]) -> dict:
    """Tensors with their units in order, a network and a member at a time."""
    found = {name: tensor.clone() for name, tensor in tensors.items()}
    for group, order in zip(groups, orders, strict=True):
        for member in group.members:
            for network in range(NETWORKS):
                units = found[member.tensor][network].unflatten(member.axis, (group.size, member.block))
                moved = units.index_select(member.axis, order[network]).flatten(member.axis, member.axis + 1)
                found[member.tensor][network] = moved
    return found


def check(layout: Layout, groups: list[AxisGroup]) -> None:
    tensors = {name: torch.randn(NETWORKS, *shape) for name, shape in layout.shapes.items()}
    orders = [torch.rand(NETWORKS, group.size).argsort(1) for group in groups]
    table, permutations = permuted_table(layout, groups), torch.cat([torch.zeros(NETWORKS, 0).long(), *orders], 1)
    chosen = list(tensors.values())
    tokens = gather_tokens(chosen, table, layout.tokens, layout.chunk, torch.float32, permutations)
    assert torch.equal(tokens, layout.gather(permuted(tensors, groups, orders)))
    sizes = [tensor[0].numel() for tensor in chosen]
    back = scatter_tokens(tokens, table, sizes, torch.float32, permutations)
    assert torch.equal(back, torch.cat([tensor.flatten(1) for tensor in chosen], 1))


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 5), max_size=3).map(tuple), st.integers(1, 2), st.integers(1, 20))
def test_gathering_permutes_as_alignment_does(sizes, grid, chunk):
    for architecture in (
        Architecture.of("weightgen/mlp", hidden=sizes, input=(1, 3, 3), classes=3),
        Architecture.of("weightgen/cnn", channels=sizes, grid=grid, kernel=3, classes=3),
    ):
        check(layout_of(architecture, chunk), axis_groups(architecture.parameter_shapes()))


def test_rows_of_any_axis_norms_and_blocks_of_rows():
    module = nn.ModuleDict(
        {
            "up": nn.ConvTranspose2d(4, 6, 2),
            "norm": nn.LayerNorm(6),
            "grouped": nn.Conv2d(6, 8, 1),
            "alone": nn.LayerNorm(8),
            "out": nn.Linear(12, 5),
        }
    )
    vectors = (Member(name, 0) for name in ("up.bias", "norm.weight", "norm.bias"))
    groups = [
        AxisGroup(4, (Member("up.weight", 0),)),
        AxisGroup(6, (*vectors, Member("up.weight", 1), Member("grouped.weight", 1))),
        AxisGroup(4, (Member("grouped.weight", 0, 2), Member("grouped.bias", 0, 2))),
        AxisGroup(2, (Member("alone.weight", 0, 4), Member("alone.bias", 0, 4))),
        AxisGroup(3, (Member("out.weight", 1, 4),)),
    ]
    check(Layout.of(module.state_dict(), 7), groups)


@pytest.mark.parametrize(
    ("groups", "match"),
    [
        ([AxisGroup(3, (Member("none", 0),))], "tensor 'none'; got no tensor"),
        (
            [AxisGroup(3, (Member("0.weight", 0),))],
            r"axis 0 of tensor '0.weight'; got shape \(4, 2, 3, 3\) for 3 units",
        ),
        ([AxisGroup(4, (Member("0.bias", 1),))], "axis 1 of tensor '0.bias'"),
        ([AxisGroup(3, (Member("0.weight", 2),))], "an axis within the columns"),
        ([AxisGroup(4, (Member("0.weight", 0),))] * 2, "two groups on one axis"),
        ([AxisGroup(2, (Member("0.weight", 1),))] * 2, "two groups along the columns"),
        ([AxisGroup(2, (Member("1.weight", 0, 2),))], "blocks of 2 that lie apart"),
    ],
)
def test_what_a_segment_cannot_permute_is_refused(groups, match):
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ConvTranspose2d(4, 6, 2))
    with pytest.raises(ArchitectureError, match=match):
        permuted_table(Layout.of(module.state_dict(), 8), groups)
