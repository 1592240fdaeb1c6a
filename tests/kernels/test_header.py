"""The arithmetic that the CPU and the GPU share, by itself."""

import ctypes

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weightgen.kernels import FIELDS

quick = settings(
    deadline=None, max_examples=60, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


def pointer(tensor: torch.Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


@quick
@given(data=st.data())
def test_the_places_of_values_are_those_of_the_formula(emulation, cases, data):
    case = data.draw(cases)
    table = case.table
    for number, segment in enumerate(case.segments):
        expected_source, expected_target = case.places(number, case.networks - 1)
        source, target = torch.empty_like(expected_source), torch.empty_like(expected_target)
        order = None if case.permutations is None else case.permutations[-1]
        emulation.index_of(pointer(table[number]), pointer(order), pointer(source), pointer(target))
        assert torch.equal(source, expected_source) and torch.equal(target, expected_target)
        assert segment.source_offset <= source.min() and source.unique().numel() == source.numel()


@quick
@given(
    rows=st.integers(1, 40), wide=st.sampled_from([1, 3, 64, 1000, 4095, 4096, 4097, 9000]), padding=st.integers(0, 9)
)
def test_tiles_cover_every_place_once(emulation, rows, wide, padding):
    row = torch.zeros(FIELDS, dtype=torch.int64)
    row[1], row[2], row[3], row[4], row[10] = rows, 1, 1, wide, padding
    covered = torch.zeros(rows * (wide + padding), dtype=torch.int64)
    emulation.tiles_over(pointer(row), pointer(covered))
    assert bool((covered == 1).all())


@quick
@given(counts=st.lists(st.integers(1, 5), min_size=1, max_size=9))
def test_the_segment_of_a_tile_is_found(emulation, counts):
    first = torch.tensor([0, *counts]).cumsum(0)
    emulation.segment_at.restype = ctypes.c_int64
    found = [
        emulation.segment_at(pointer(first), ctypes.c_int64(len(counts)), ctypes.c_int64(tile))
        for tile in range(int(first[-1]))
    ]
    assert found == torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).tolist()


@pytest.mark.parametrize("sign", [0, -(2**31)])
def test_casts_round_as_torch_does(emulation, sign):
    """Every half and brain number, all that lies about midway between two, and numbers of every size."""
    halves = torch.arange(0, 0x7C01, dtype=torch.int16).view(torch.float16).float()
    brains = torch.arange(0, 0x7F81, dtype=torch.int16).view(torch.bfloat16).float()
    near = torch.cat([(numbers[1:] + numbers[:-1]) / 2 for numbers in (halves, brains)]).view(torch.int32)
    other = torch.arange(0, 0x7F800000, 9973, dtype=torch.int32)
    bits = torch.cat([halves.view(torch.int32), brains.view(torch.int32), near, near + 1, near - 1, other])
    values = (bits | sign).view(torch.float32)
    half, brain, back = (torch.empty(len(values), dtype=kind) for kind in (torch.int16, torch.int16, torch.float32))
    emulation.through_half(*map(pointer, (values, half, brain, back)), ctypes.c_int64(len(values)))
    finite = ~values.isnan()
    assert torch.equal(half[finite], values.half().view(torch.int16)[finite])
    assert torch.equal(brain[finite], values.bfloat16().view(torch.int16)[finite])
    assert torch.equal(back[finite], values.half().float()[finite])


def test_what_is_no_number_stays_none(emulation):
    values = torch.tensor([float("nan"), -float("nan")])
    half, brain, back = (torch.empty(2, dtype=kind) for kind in (torch.int16, torch.int16, torch.float32))
    emulation.through_half(*map(pointer, (values, half, brain, back)), ctypes.c_int64(2))
    assert bool(half.view(torch.float16).isnan().all()) and bool(brain.view(torch.bfloat16).isnan().all())
    assert bool(back.isnan().all())
