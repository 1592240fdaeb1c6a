"""The reference, the C++ twin and the GPU's code on the CPU, each against the formula, bit for bit."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weightgen.kernels import Segment, gather_tokens, native, scatter_codes, scatter_tokens, table_of
from weightgen.kernels.ops import CODES

KINDS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
MOVED = [*KINDS, torch.int64, torch.int32, torch.int16, torch.uint8, torch.bool]
thorough = settings(
    deadline=None, max_examples=15, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip


def same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether every bit is the same."""
    found = found.cpu().contiguous()
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    return torch.equal(found.view(BITS[found.itemsize]), expected.contiguous().view(BITS[found.itemsize]))


def compute(kind: torch.dtype) -> torch.dtype:
    return torch.float64 if kind == torch.float64 else torch.float32


def on(device: str, *tensors):
    return [None if tensor is None else tensor.to(device) for tensor in tensors]


@thorough
@given(data=st.data())
@pytest.mark.parametrize("kind", MOVED, ids=str)
def test_moves_keep_every_bit(twin, cases, kind, data):
    case = data.draw(cases)
    tensors = [torch.randint(0, 256, (case.networks, size * kind.itemsize), dtype=torch.uint8) for size in case.sizes]
    tensors = [(one % 2).bool() if kind == torch.bool else one.view(kind) for one in tensors]
    bits = [one.view(BITS[kind.itemsize]) for one in tensors]
    expected = case.gathered(bits, lambda values, number, target: values, bits[0].dtype).view(kind)
    (permutations,) = on(twin, case.permutations)
    tokens = gather_tokens(on(twin, *tensors), case.table, case.tokens, case.chunk, kind, permutations)
    assert same(tokens, expected)
    found = scatter_tokens(tokens, case.table, case.sizes, kind, permutations).split(case.sizes, 1)
    assert all(same(one, tensor) for one, tensor in zip(found, tensors, strict=True))


@thorough
@given(data=st.data())
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_gathering_normalises_and_casts(twin, cases, kind, data):
    case, divide = data.draw(cases), data.draw(st.booleans())
    random = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    tensors = [
        torch.randn(case.networks, size, generator=random).to(data.draw(st.sampled_from(KINDS))) for size in case.sizes
    ]
    reference = torch.randn(case.tokens, case.chunk, generator=random) if data.draw(st.booleans()) else None
    scales = torch.rand(len(case.segments), generator=random) + 0.1 if data.draw(st.booleans()) else None

    def change(values, number, target):
        values = values.to(compute(kind))
        if reference is not None:
            values = values - reference.flatten()[target].to(compute(kind))
        if scales is not None:
            scale = scales[number].to(compute(kind))
            values = values / scale if divide else values * scale
        return values.to(kind)

    expected = case.gathered(tensors, change, kind)
    permutations, shift, by = on(twin, case.permutations, reference, scales)
    found = gather_tokens(
        on(twin, *tensors), case.table, case.tokens, case.chunk, kind, permutations, shift, by, divide
    )
    assert same(found, expected)


@thorough
@given(data=st.data())
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_scattering_denormalises_and_casts(twin, cases, kind, data):
    case, divide, levels = data.draw(cases), data.draw(st.booleans()), data.draw(st.integers(0, 5))
    random = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    to = data.draw(st.sampled_from(KINDS))
    reference = torch.randn(case.tokens, case.chunk, generator=random) if data.draw(st.booleans()) else None
    scales = torch.rand(len(case.segments), generator=random) + 0.1 if data.draw(st.booleans()) else None
    permutations, shift, by = on(twin, case.permutations, reference, scales)
    options = (case.sizes, to, permutations, shift, by, divide)
    if levels:
        codebooks = torch.randn(levels, 5, case.chunk, generator=random).to(kind)
        codes = torch.randint(0, 5, (*case.shape[:2], levels), generator=random)
        narrow = codes.to(data.draw(st.sampled_from(CODES)))
        tokens = codebooks[0][codes[..., 0]].to(compute(kind))
        for level in range(1, levels):
            tokens = tokens + codebooks[level][codes[..., level]]
        found = scatter_codes(*on(twin, narrow, codebooks), case.table, *options)
    else:
        tokens = torch.randn(case.shape, generator=random).to(kind)
        found = scatter_tokens(*on(twin, tokens), case.table, *options)

    def change(values, number, target):
        values = values.to(compute(kind))
        if scales is not None:
            scale = scales[number].to(compute(kind))
            values = values / scale if divide else values * scale
        if reference is not None:
            values = values + reference.flatten()[target].to(compute(kind))
        return values.to(to)

    expected = case.scattered(tokens, change, to)
    assert same(found, torch.cat(expected, 1))


@pytest.mark.parametrize("networks", [0, 1, 2])
def test_no_networks_and_no_values(twin, networks):
    """A tensor without values has no segment, and no network has no tokens."""
    table = table_of([Segment(1, 2, 1, 1, 3, 0, 3, 3, 0, 4, 1)])
    tensors = [torch.zeros(networks, 0, 5, device=twin), torch.ones(networks, 2, 3, device=twin)]
    tokens = gather_tokens(tensors, table, 2, 4, torch.float32)
    assert tokens.tolist() == [[[1, 1, 1, 0]] * 2] * networks
    found = scatter_tokens(tokens, table, [0, 6], torch.float32)
    assert found.tolist() == [[1] * 6] * networks


def test_what_no_segment_covers_is_zero(twin):
    table = table_of([Segment(0, 1, 1, 1, 2, 1, 2, 2, 4, 4, 0)])
    tokens = gather_tokens([torch.ones(1, 4, device=twin)], table, 3, 4, torch.float32)
    assert tokens.flatten().tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0]
    found = scatter_tokens(torch.ones(1, 3, 4, device=twin), table, [4], torch.float32)
    assert found.tolist() == [[0, 1, 1, 0]]


@pytest.mark.parametrize(
    ("width", "kind"), [(333, torch.float32), (768, torch.float32), (333, torch.bfloat16)], ids=str
)
def test_large_batches_are_streamed(cpu, monkeypatch, width, kind):
    """Beyond 32 MB the C++ twin writes past the cache, narrow and wide rows at all alignments."""
    monkeypatch.setattr(native, "choose", lambda device, values: cpu)
    rows, chunk = 37, 40
    stride = -(-(width + 1) // chunk) * chunk
    networks = (34 << 20) // (rows * stride * kind.itemsize)
    table = table_of([
        Segment(0, rows, 1, 1, width, 0, width, width, 0, stride, 0, 0),
        Segment(1, rows, 1, 1, 1, 0, 1, 1, width, stride, stride - width - 1, 0),
    ])  # fmt: skip
    random = torch.Generator().manual_seed(0)
    tensors = [torch.randn(networks, rows, width, generator=random), torch.randn(networks, rows, generator=random)]
    order = torch.rand(networks, rows, generator=random).argsort(1)
    matrix = torch.cat([tensors[0], tensors[1][..., None]], 2)[torch.arange(networks)[:, None], order]
    shape, sizes = (rows * stride // chunk, chunk, kind), [rows * width, rows]
    tokens = gather_tokens(tensors, table, *shape, order)
    assert torch.equal(tokens.view(networks, rows, stride)[..., : width + 1], matrix.to(kind))
    assert not tokens.view(networks, rows, stride)[..., width + 1 :].any()
    back = scatter_tokens(tokens, table, sizes, torch.float32, order)
    assert torch.equal(back, torch.cat([tensor.flatten(1) for tensor in tensors], 1).to(kind).float())
    shift, by = torch.randn(*shape[:2], generator=random), torch.tensor([0.7, 0.7])
    normal = gather_tokens(tensors, table, *shape, order, shift, by)
    shift = shift.view(rows, stride)[:, : width + 1]
    assert torch.equal(normal.view(networks, rows, stride)[..., : width + 1], ((matrix - shift) / by[0]).to(kind))
    back = scatter_tokens(normal, table, sizes, torch.float32, order, torch.ones(*shape[:2]), by)
    few = scatter_tokens(normal[-2:], table, sizes, torch.float32, order[-2:], torch.ones(*shape[:2]), by)
    assert torch.equal(back[-2:], few)
