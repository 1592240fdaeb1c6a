import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weightgen.zoo import spaces
from weightgen.zoo.spaces import Bounds, distances, least


def by_hand(matrix, to, k):
    squares = distances(matrix, numpy.arange(len(matrix)), to)
    chosen = least(squares, k)
    return chosen.tolist(), squares[chosen].tolist()


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 300),
    st.sampled_from([0, 1, 3, 40, 1000]),
    st.sampled_from([1e-25, 1e-6, 1, 1e4, 1e18, 1e25]),
    st.sampled_from([0, 1, 1e3]),
)
def test_the_nearest_are_those_of_all_distances(seed, rows, k, scale, offset):
    random = numpy.random.default_rng(seed)
    matrix = (random.standard_normal((rows, 128)) + offset).astype(numpy.float32) * numpy.float32(scale)
    # Some rows twice, so that there are ties, and some that differ by a rounding.
    matrix = numpy.concatenate([matrix, matrix[: rows // 3], numpy.nextafter(matrix[: rows // 5], numpy.float32(1e30))])
    to = matrix[int(random.integers(len(matrix)))]
    with numpy.errstate(over="ignore", under="ignore"):
        found, squares = Bounds(matrix, to).least(k)
        assert (found.tolist(), squares.tolist()) == by_hand(matrix, to, k)


def test_only_few_distances_are_computed(monkeypatch):
    matrix = numpy.random.default_rng(0).standard_normal((5000, 128), dtype=numpy.float32)
    asked = []

    def noted(matrix, rows, to):
        asked.append(len(rows))
        return distances(matrix, rows, to)

    monkeypatch.setattr(spaces, "distances", noted)
    Bounds(matrix, matrix[7]).least(10)
    assert 10 <= asked[0] < 20


@pytest.mark.parametrize("number", [1, 3, 10])
def test_parts_cover_all_rows(number, monkeypatch):
    monkeypatch.setattr(spaces, "CHUNK", 3)
    seen: list[int] = []
    spaces._in_chunks(lambda start, stop: seen.extend(range(start, stop)), 100 * number)
    assert sorted(seen) == list(range(100 * number))
