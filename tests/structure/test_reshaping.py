import math

from hypothesis import given
from hypothesis import strategies as st

from weightgen.structure.reshaping import merged_axes, split_axes


@st.composite
def cut_twice(draw):
    """Two shapes that are one list of sizes, merged in two ways."""
    sizes = draw(st.lists(st.integers(2, 4), max_size=6))
    shapes = []
    for _ in range(2):
        shape, run = [], 1
        for size in sizes:
            run *= size
            if draw(st.booleans()):
                shape.append(run)
                run = 1
        shapes.append([*shape, run] if run > 1 else shape)
    return shapes


@given(cut_twice())
def test_pieces_make_up_both_shapes(shapes):
    shape, target = shapes
    pieces = split_axes(shape, target)
    assert pieces is not None and [math.prod(axis) for axis in pieces] == shape
    split = [size for axis in pieces for size in axis]
    runs = merged_axes(split, target)
    assert [math.prod(split[first : first + count]) for first, count in runs] == target
    assert sum(count for _, count in runs) == len(split)


def test_shapes_without_common_pieces():
    assert split_axes([4, 6], [3, 8]) is None
    assert split_axes([2304], [3, 12, 64]) == [(3, 12, 64)]
    assert split_axes([], []) == []
