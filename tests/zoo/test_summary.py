import math

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weightgen.zoo import summary
from weightgen.zoo.summary import DIMENSION, PERCENTILES, embedding, natural, summarise


@given(st.lists(st.floats(width=32) | st.sampled_from([0.0, math.nan, math.inf, -math.inf]), max_size=40))
def test_figures_are_those_of_the_values(values):
    found = summarise(torch.tensor(values, dtype=torch.float32))
    finite = numpy.array([one for one in values if math.isfinite(one)], numpy.float64)
    assert (found.zeros, found.non_finite) == (int((finite == 0).sum()), len(values) - len(finite))
    if len(finite) < len(values):
        assert found.norm is None
    else:
        assert found.norm == pytest.approx(float(numpy.sqrt((finite**2).sum())), rel=1e-5)
    if not len(finite):
        assert found.profile is None
        return
    ordered = numpy.sort(finite)
    ranks = [round(percentile / 100 * (len(ordered) - 1)) for percentile in PERCENTILES]
    expected = [finite.mean(), finite.std(), *ordered[ranks], math.log10(len(finite)) / 10]
    # What is beyond all bounds is cut, and the deviation loses digits where the mean is much greater; below the
    # smallest normal number of single precision there are no digits to lose.
    scale = max(min(float(numpy.abs(finite).max()), 1e6), 1e3 * float(numpy.finfo(numpy.float32).tiny))
    assert numpy.allclose(found.profile, numpy.clip(expected, -1e6, 1e6), rtol=1e-3, atol=1e-3 * scale)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
def test_every_kind(kind):
    values = torch.tensor([[0, 1, 1], [0, 1, 1]]).to(kind)
    found = summarise(values)
    assert (found.norm, found.zeros, found.non_finite) == (2, 2, 0)
    assert (found.profile is None) == (not kind.is_floating_point)
    assert summarise(torch.zeros((), dtype=kind)).zeros == 1
    assert summarise(torch.zeros((0, 3), dtype=kind)).norm == 0


def test_great_tensors_are_looked_at_in_parts(monkeypatch):
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    values[3], values[500] = math.nan, 0
    whole = summarise(values)
    monkeypatch.setattr(summary, "CHUNK", 7)
    parts = summarise(values)
    assert (parts.zeros, parts.non_finite, parts.norm) == (whole.zeros, whole.non_finite, whole.norm) == (1, 1, None)
    assert numpy.allclose(parts.profile, whole.profile)
    monkeypatch.setattr(summary, "SAMPLE", 100)
    assert numpy.abs(summarise(values).profile - whole.profile).max() < 0.6


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.int8])
def test_values_that_come_in_parts_give_the_same(kind, monkeypatch):
    monkeypatch.setattr(summary, "CHUNK", 64)
    monkeypatch.setattr(summary, "SAMPLE", 100)
    values = (3 * torch.randn(1000, generator=torch.Generator().manual_seed(0))).to(kind)
    figures = summary.Figures(1000)
    for start in range(0, 1000, 192):
        figures.add(values[start : start + 192])
    (parts,), whole = figures.summaries(), summarise(values)
    assert parts[:3] == whole[:3] and numpy.array_equal(parts.profile, whole.profile)


def test_bfloat16_gives_what_its_values_give_as_float32():
    values = torch.randn(5000, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    values[:4] = torch.tensor([0.0, -0.0, math.nan, math.inf])
    half, single = summarise(values), summarise(values.float())
    assert half[:3] == single[:3] == (None, 2, 2) and numpy.array_equal(half.profile, single.profile)


@given(st.data())
def test_tensors_that_are_looked_at_together_give_the_same_as_alone(data):
    random = numpy.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    tensors = []
    for size in data.draw(st.lists(st.sampled_from([0, 1, 3, 700, 4100, 9000]), max_size=12)):
        values = random.standard_normal(size).astype(data.draw(st.sampled_from(["float32", "float16", "int64"])))
        if size > 1 and values.dtype.kind == "f":
            values[1] = data.draw(st.sampled_from([0, 1, numpy.nan, numpy.inf]))
        tensors.append(torch.from_numpy(values))
    for one, tensor in zip(summary.summaries(tensors), tensors, strict=True):
        alone = summarise(tensor)
        assert one[:3] == alone[:3]
        assert (one.profile is None) == (alone.profile is None) and numpy.array_equal(one.profile, alone.profile)


def test_squares_that_float32_cannot_hold():
    assert summarise(torch.full((4,), 1e30)).norm == pytest.approx(2e30)


def test_the_space_takes_any_architecture():
    random = torch.Generator().manual_seed(0)
    for shapes in ({"a": (3,)}, {f"layer{at}.weight": (at + 1, 4) for at in range(40)}, {"n": ()}):
        profiles = {name: summarise(torch.randn(shape, generator=random)).profile for name, shape in shapes.items()}
        place = embedding(profiles)
        assert place.shape == (DIMENSION,) and place.dtype == numpy.float32 and numpy.isfinite(place).all()
        assert numpy.array_equal(place, embedding(dict(reversed(profiles.items()))))
    assert not embedding({"counter": None}).any()


def test_layers_are_in_natural_order():
    names = ["layer10.a", "layer2.b", "layer2.a", "2", "a"]
    assert sorted(names, key=natural) == ["2", "a", "layer2.a", "layer2.b", "layer10.a"]
