import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weightgen.architecture import Architecture
from weightgen.tokenizers.layout import COORDINATES, layout_of

SIZES = st.lists(st.integers(1, 5), min_size=0, max_size=3).map(tuple)
INPUTS = st.sampled_from([(1, 4, 4), (2, 3, 5)])
PERCEPTRONS = st.builds(
    lambda hidden, classes, shape: Architecture.of("weightgen/mlp", hidden=hidden, classes=classes, input=shape),
    SIZES, st.integers(1, 4), INPUTS,
)  # fmt: skip
CONVOLUTIONAL = st.builds(
    lambda channels, kernel, grid, shape: Architecture.of(
        "weightgen/cnn", channels=channels, kernel=kernel, grid=grid, classes=3, input=shape
    ),
    SIZES, st.sampled_from([1, 3]), st.integers(1, 3), INPUTS,
)  # fmt: skip
ARCHITECTURES = PERCEPTRONS | CONVOLUTIONAL
CHUNKS = st.integers(1, 40)
INTEGERS = {torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16}


@settings(deadline=None, max_examples=60)
@given(ARCHITECTURES, CHUNKS, st.sampled_from(list(INTEGERS)), st.integers(0, 1000))
def test_scattering_undoes_gathering_bit_for_bit(architecture, chunk, kind, seed):
    random = torch.Generator().manual_seed(seed)
    shapes = architecture.parameter_shapes()
    tensors = {name: torch.randn(2, *shape, generator=random).to(kind) for name, shape in shapes.items()}
    next(iter(tensors.values())).view(-1)[0] = -0.0
    layout = layout_of(architecture, chunk)
    tokens = layout.gather(tensors)
    assert tokens.shape == (2, layout.tokens, chunk) and tokens.dtype == kind
    assert not tokens[:, ~layout.mask].any()
    found = layout.scatter(tokens)
    assert list(found) == list(shapes)
    for name, tensor in tensors.items():
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name].view(INTEGERS[kind]), tensor.view(INTEGERS[kind]))


@settings(deadline=None, max_examples=60)
@given(ARCHITECTURES, CHUNKS)
def test_a_token_is_part_of_one_row_and_the_bias_ends_it(architecture, chunk):
    layout = layout_of(architecture, chunk)
    shapes = architecture.parameter_shapes()
    # Every value is marked with its layer and row; the biases of a row come after its weights.
    layers = [name.removesuffix(".weight") for name in shapes if name.endswith(".weight")]
    marks, places = {}, {}
    for depth, layer in enumerate(layers):
        shape = shapes[f"{layer}.weight"]
        width = torch.Size(shape[1:]).numel()
        row = torch.arange(shape[0]) + 1 + 1000 * depth
        marks[f"{layer}.weight"] = row[:, None].expand(-1, width).reshape(1, *shape)
        marks[f"{layer}.bias"] = row[None]
        places[f"{layer}.weight"] = torch.arange(width).expand(shape[0], -1).reshape(1, *shape)
        places[f"{layer}.bias"] = torch.full((1, shape[0]), width)
    rows: dict[int, list[int]] = {}
    for mark, place, mask in zip(layout.gather(marks)[0], layout.gather(places)[0], layout.mask, strict=True):
        assert len(set(mark[mask].tolist())) == 1
        assert mask.tolist() == sorted(mask.tolist(), reverse=True)
        rows.setdefault(int(mark[0]), []).extend(place[mask].tolist())
    assert list(rows) == sorted(rows) and len(rows) == sum(shapes[f"{layer}.bias"][0] for layer in layers)
    assert all(found == list(range(len(found))) for found in rows.values())
    assert int(layout.mask.sum()) == architecture.parameters == len(layout.tensor_of)


def test_padding_is_zero_whatever_the_weights():
    architecture = Architecture.parse("weightgen/mlp?hidden=3&input=1,2,2&classes=2")
    layout = layout_of(architecture, 4)
    shapes = architecture.parameter_shapes()
    tokens = layout.gather({name: torch.full((1, *shape), float("nan")) for name, shape in shapes.items()})
    assert torch.equal(tokens.isnan()[0], layout.mask)


def test_coordinates_say_where_a_token_lies():
    layout = layout_of(Architecture.parse("weightgen/cnn?channels=2&classes=3&grid=1&input=1,8,8"), 4)
    # Two rows of 9 + 1 values in three chunks each, then three rows of 2 + 1 values in one chunk each.
    told = {name: layout.coordinates[:, index].tolist() for index, name in enumerate(COORDINATES)}
    assert layout.coordinates.dtype == torch.float32 and layout.coordinates.shape == (9, len(COORDINATES))
    assert told["depth"] == [0] * 6 + [1] * 3 == told["last"] == told["depth_share"]
    assert told["depths"] == [2] * 9
    assert told["row"] == [0, 0, 0, 1, 1, 1, 0, 1, 2]
    assert told["rows"] == [2] * 6 + [3] * 3
    assert told["row_share"] == [0, 0, 0, 1, 1, 1, 0, 0.5, 1]
    assert told["column"] == [0, 1, 2, 0, 1, 2, 0, 0, 0]
    assert told["columns"] == [3] * 6 + [1] * 3
    assert told["column_share"] == [0, 0.5, 1, 0, 0.5, 1, 0, 0, 0]
    assert told["convolution"] == [1] * 6 + [0] * 3 == told["first"]
    assert told["kernel"] == [3] * 6 + [1] * 3
    assert told["log_fan_in"] == pytest.approx([math.log(9)] * 6 + [math.log(2)] * 3)
    assert told["log_fan_out"] == pytest.approx([math.log(2)] * 6 + [math.log(3)] * 3)
    assert told["values"] == [4, 4, 2, 4, 4, 2, 3, 3, 3]


@settings(deadline=None, max_examples=30)
@given(ARCHITECTURES, CHUNKS)
def test_no_two_tokens_have_the_same_place(architecture, chunk):
    coordinates = layout_of(architecture, chunk).coordinates
    assert len(coordinates.unique(dim=0)) == len(coordinates)
    assert coordinates.isfinite().all()


def test_gradients_pass_through_scattering():
    layout = layout_of(Architecture.parse("weightgen/mlp?hidden=3&input=1,2,2&classes=2"), 4)
    tokens = torch.zeros(1, layout.tokens, 4, requires_grad=True)
    sum(tensor.sum() for tensor in layout.scatter(tokens).values()).backward()
    assert torch.equal(tokens.grad[0], layout.mask.float())


@settings(deadline=None, max_examples=60)
@given(ARCHITECTURES, CHUNKS)
def test_plain_stacks_lie_as_trained_artefacts_expect(architecture, chunk):
    """By the first algorithm of layouts, which wrote down an index for each value."""
    shapes = architecture.parameter_shapes()
    weights = [name for name in shapes if name.endswith(".weight")]
    sizes = torch.tensor([0, *(torch.Size(shape).numel() for shape in shapes.values())])
    starts = dict(zip(shapes, sizes.cumsum(0).tolist(), strict=False))
    positions, coordinates = [], []
    for depth, name in enumerate(weights):
        shape, bias = shapes[name], name.removesuffix("weight") + "bias"
        rows, width = shape[0], torch.Size(shape[1:]).numel()
        matrix = starts[name] + torch.arange(rows * width).view(rows, width)
        matrix = torch.cat([matrix, starts[bias] + torch.arange(rows)[:, None]], dim=1)
        columns = -(-matrix.shape[1] // chunk)
        padded = torch.full((rows, columns * chunk), -1, dtype=torch.int64)
        padded[:, : matrix.shape[1]] = matrix
        positions.append(padded.view(rows * columns, chunk))
        row = torch.arange(rows).repeat_interleave(columns).float()
        column = torch.arange(columns).repeat(rows).float()
        constant = torch.ones(rows * columns)
        told = [
            constant * depth, constant * len(weights), constant * depth / max(len(weights) - 1, 1),
            row, constant * rows, row / max(rows - 1, 1),
            column, constant * columns, column / max(columns - 1, 1),
            constant * (len(shape) > 2), constant * (shape[-1] if len(shape) > 2 else 1),
            constant * (depth == 0), constant * (depth == len(weights) - 1),
            (constant * width).log(), (constant * rows).log(), (positions[-1] >= 0).sum(1).float(),
        ]  # fmt: skip
        coordinates.append(torch.stack(told, dim=1))
    layout = layout_of(architecture, chunk)
    assert torch.equal(layout.positions, torch.cat(positions)) and layout.positions.dtype == torch.int64
    assert torch.equal(layout.mask, torch.cat(positions) >= 0)
    assert torch.equal(layout.coordinates, torch.cat(coordinates))
    assert torch.equal(layout.tensor_of, torch.arange(len(shapes)).repeat_interleave(sizes[1:]))
    assert dict(layout.shapes) == shapes and not layout.copied


def test_the_coordinates_are_those_that_trained_artefacts_read():
    assert ",".join(COORDINATES) == (
        "depth,depths,depth_share,row,rows,row_share,column,columns,column_share,convolution,kernel,first,last,"
        "log_fan_in,log_fan_out,values"
    )
