import numpy

from weightgen.structure.constraints import Constraints, paired


def test_pairs_in_either_order_differ():
    numbers = numpy.arange(300)
    hashes = paired(numbers[:, None], numbers[None])
    assert len(numpy.unique(hashes)) == hashes.size


def test_each_node_of_a_locked_axis_has_a_colour_of_its_own():
    constraints = Constraints()
    nodes = constraints.fresh((200,))
    # With a hash that is the same for (1, 56) and (56, 1), nodes 1 and 56 would be alike after statements 1 and 56.
    for _ in range(200):
        constraints.fix(nodes, "a reason")
    assert len(numpy.unique(constraints.colours())) == 200
    assert constraints.reasons[constraints.fixed()[7]] == "a reason"


def test_a_union_prefers_nodes_to_constants():
    constraints = Constraints()
    nodes, zero = constraints.fresh((3,)), constraints.constant()
    merged = constraints.union(numpy.array([nodes[0], zero, zero]), numpy.array([zero, nodes[1], zero]))
    assert merged[:2].tolist() == nodes[:2].tolist() and merged[2] < 0
    assert len(constraints.unions().first) == 0


def test_the_same_blocks_have_the_same_owners():
    constraints = Constraints()
    nodes = constraints.fresh((3, 4))
    owners = constraints.blocks(nodes, (0,))
    assert numpy.array_equal(constraints.blocks(nodes[:, ::-1], (0,)), owners)
    assert not numpy.array_equal(constraints.blocks(nodes, (1,)), owners[:1])
    edges = constraints.attachments()
    assert edges.place[:12].tolist() == [0, 1, 2, 3] * 3
    given = constraints.fresh((3,))
    constraints.blocks(nodes, (0,), given)
    assert constraints.unions().second.tolist() == given.tolist()


def test_a_node_that_fills_a_gap_is_not_in_two_places():
    constraints = Constraints()
    nodes, zero = constraints.fresh((2,)), constraints.constant()
    merged = constraints.union(numpy.array([zero, nodes[0]]), numpy.array([nodes[0], nodes[1]]))
    assert len(set(merged.tolist())) == 2 and (merged >= 0).all()
