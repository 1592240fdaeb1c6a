import numpy
import torch
from hypothesis import given
from hypothesis import strategies as st

from weightgen.structure import AxisGroup, Member, permuted


@given(st.permutations(range(4)), st.booleans())
def test_the_inverse_order_gives_the_tensors_back(order, part):
    table = numpy.array([[0, 9], [4, 2], [7, 5], [8, 1]])
    tensors = {"a": torch.randn(6, 10), "b": torch.randn(8), "c": torch.randn(3)}
    members = (Member.of("a", 1, table, (0, 2, 5) if part else None), Member("b", 0, 2))
    group = AxisGroup(4, members)
    order = torch.tensor(order)
    moved = permuted(tensors, group, order)
    assert moved["c"] is tensors["c"]
    back = permuted(moved, group, order.argsort())
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


def test_units_move_with_all_their_indices_within_their_part():
    tensor = torch.arange(12).view(3, 4)
    member = Member.of("a", 1, numpy.array([[0, 3], [2, 1]]), (0, 1, 3))
    moved = permuted({"a": tensor}, AxisGroup(2, (member,)), torch.tensor([1, 0]))["a"]
    assert moved.tolist() == [[0, 1, 2, 3], [6, 7, 4, 5], [10, 11, 8, 9]]


def test_a_block_needs_no_table():
    assert Member.of("a", 0, numpy.arange(6).reshape(3, 2)) == Member("a", 0, 2)
    assert Member.of("a", 0, numpy.arange(6).reshape(2, 3).T).table is not None
    assert Member("a", 0, 2).indices(3).tolist() == [[0, 1], [2, 3], [4, 5]]
