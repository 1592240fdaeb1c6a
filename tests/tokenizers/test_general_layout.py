"""Layouts of any network: real ones at small sizes, and state dicts that no network has."""

import json
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from weightgen.architecture import Architecture
from weightgen.errors import ArchitectureError, CorruptFileError
from weightgen.tokenizers.layout import COORDINATES, KINDS, Layout, layout_of

BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def timm(recipe: str) -> Callable[[], nn.Module]:
    return lambda: Architecture.parse(f"timm/{recipe}").build()


def transformer(name: str, **options) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import transformers

        config = getattr(transformers, f"{name}Config")(**options)
        return getattr(transformers, f"{name}Model")(config)

    return build


class Odd(nn.Module):
    """What the usual networks have not: parameters of their own, empty ones, a counter, tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(0.5))
        self.empty = nn.Parameter(torch.zeros(0, 3))
        self.narrow = nn.ParameterDict({"weight": torch.zeros(2, 0), "bias": torch.zeros(2)})
        self.up = nn.ConvTranspose2d(3, 5, 2)
        self.after = nn.BatchNorm2d(5)
        self.lstm = nn.LSTM(3, 4, num_layers=2, bidirectional=True)
        self.attention = nn.MultiheadAttention(4, 2)
        self.embedding = nn.Embedding(7, 4)
        self.out = nn.Linear(4, 7)
        self.out.weight = self.embedding.weight
        self.bilinear = nn.Bilinear(2, 3, 4)
        self.prelu = nn.PReLU()
        self.group = nn.GroupNorm(2, 4)
        self.register_buffer("steps", torch.tensor(3))
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("phase", torch.ones(2, dtype=torch.complex64))


MODULES: dict[str, Callable[[], nn.Module]] = {
    "resnet": timm("test_resnet?num_classes=10"),
    "vit": timm("test_vit?num_classes=10"),
    "efficientnet": timm("test_efficientnet?num_classes=10"),
    "convnext": timm("test_convnext?num_classes=10"),
    "bert": transformer(
        "Bert", hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12, vocab_size=11
    ),
    "gpt2": transformer("GPT2", n_embd=8, n_layer=2, n_head=2, vocab_size=11, n_positions=5),
    "llama": transformer(
        "Llama", hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, vocab_size=11,
    ),
    "odd": Odd,
}  # fmt: skip


@pytest.fixture(scope="module", params=MODULES)
def module(request) -> nn.Module:
    torch.manual_seed(0)
    return MODULES[request.param]()


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    """Whether names, order, types, shapes and every bit are the same."""
    return list(found) == list(expected) and all(
        one.dtype == two.dtype
        and one.shape == two.shape
        and torch.equal(one.contiguous().view(BITS[one.itemsize]), two.contiguous().view(BITS[two.itemsize]))
        for one, two in zip(found.values(), expected.values(), strict=True)
    )


def there_and_back(tensors: dict[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """A network through its tokens."""
    batch = {name: tensor[None] for name, tensor in tensors.items()}
    kinds = {name: tensors[name].dtype for name in layout.shapes}
    found = layout.scatter(layout.gather(batch), dtypes=kinds) | layout.beside(batch)
    return {name: found[name][0] for name in tensors}


@pytest.mark.parametrize("chunk", [1, 16, 80])
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_every_network_comes_back_bit_for_bit(module, kind, chunk):
    tensors = {name: one.to(kind) if one.is_floating_point() else one for name, one in module.state_dict().items()}
    assert same(there_and_back(tensors, Layout.of(tensors, chunk)), tensors)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_what_is_no_number_comes_back_with_every_bit(kind):
    """Any bits at all, so also infinities, and NaNs of every payload and both signs."""
    shapes = {"weight": (40, 30), "bias": (40,), "scale": (), "none": (0, 2)}
    tensors = {
        name: torch.randint(0, 256, (*shape, kind.itemsize), dtype=torch.uint8).view(kind).view(shape)
        for name, shape in shapes.items()
    }
    exponent = {torch.float32: 0x7F800001, torch.float16: 0x7C01, torch.bfloat16: 0x7F81}[kind]
    tensors["weight"][0] = torch.tensor(exponent, dtype=BITS[kind.itemsize]).view(kind)  # a signalling one
    tensors["weight"] = tensors["weight"].mT.contiguous().mT
    assert tensors["weight"].isnan().any() and not tensors["weight"].is_contiguous()
    assert same(there_and_back(tensors, Layout.of(tensors, 16)), tensors)


def test_types_may_be_mixed(module):
    kinds = [torch.float32, torch.bfloat16, torch.float16]
    tensors = {
        name: one.to(kinds[number % 3]) if one.dtype == torch.float32 else one
        for number, (name, one) in enumerate(module.state_dict().items())
    }
    layout = Layout.of(tensors, 16)
    assert layout.gather({name: one[None] for name, one in tensors.items()}).dtype == torch.float32
    assert same(there_and_back(tensors, layout), tensors)


def test_a_token_is_of_one_row_of_each_tensor_and_every_value_has_one_place(module):
    tensors = module.state_dict()
    layout = Layout.of(tensors, 16)
    places = layout.positions[layout.mask]
    assert torch.equal(places.sort().values, torch.arange(len(layout.tensor_of)))
    assert set(layout.shapes) | set(layout.copied) == set(tensors)
    assert len(layout.coordinates) == len(layout.kinds) == len(layout.positions) == layout.tokens
    assert layout.coordinates.isfinite().all()
    rows = {}
    for block in layout.blocks:
        for piece in block.pieces:
            shape = layout.shapes[piece.tensor]
            index = torch.zeros(shape, dtype=torch.int64)
            if piece.axis is not None:
                index += torch.arange(shape[piece.axis]).view(-1, *[1] * (len(shape) - piece.axis - 1))
            rows[piece.tensor] = index.flatten()
    numbers = torch.cat([rows.get(name, torch.zeros(0, dtype=torch.int64)) for name in layout.shapes])
    for token, told in zip(layout.positions, layout.coordinates, strict=True):
        values = token[token >= 0]
        # All of a token's values are of the row that its coordinates name, in whichever tensor.
        assert numbers[values].unique().tolist() == [int(told[COORDINATES.index("row")])]
        assert len(values) == told[COORDINATES.index("values")] and bool((token[len(values) :] == -1).all())


def test_a_layout_is_small(module):
    layout = Layout.of(module.state_dict(), 16)
    assert len(layout.table) == sum(len(block.pieces) for block in layout.blocks) <= len(layout.shapes)


def test_a_saved_layout_is_the_same(module):
    layout = Layout.of(module.state_dict(), 16)
    found = Layout.from_json(json.loads(json.dumps(layout.to_json())))
    assert found == layout and found == Layout.of(module.state_dict(), 16)
    assert torch.equal(found.table, layout.table) and torch.equal(found.coordinates, layout.coordinates)


def pieces(tensors: dict[str, Tensor]) -> list[tuple]:
    blocks = Layout.of(tensors, 8).blocks
    return [(block.kind, *((piece.tensor, piece.axis) for piece in block.pieces)) for block in blocks]


def test_a_norm_that_follows_a_layer_is_part_of_its_rows():
    module = nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.Linear(3, 3), nn.LayerNorm(3))
    statistics = [(f"1.{leaf}", 0) for leaf in ("weight", "bias", "running_mean", "running_var")]
    assert pieces(module.state_dict()) == [
        ("convolution", ("0.weight", 0), *statistics),
        ("linear", ("2.weight", 0), ("2.bias", 0), ("3.weight", 0), ("3.bias", 0)),
    ]


def test_a_norm_that_belongs_to_no_layer_is_a_row_of_its_own():
    module = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 3), nn.LayerNorm(5), nn.LayerNorm(3), nn.Embedding(3, 2))
    assert pieces(module.state_dict()) == [
        ("norm", ("0.weight", None)), ("norm", ("0.bias", None)),
        ("linear", ("1.weight", 0), ("1.bias", 0)),
        ("norm", ("2.weight", None)), ("norm", ("2.bias", None)),
        ("norm", ("3.weight", None)), ("norm", ("3.bias", None)),
        ("linear", ("4.weight", 0)),
    ]  # fmt: skip


def test_rows_run_along_the_axis_of_the_bias():
    """The second of transposed convolutions, and of the linear layers of GPT-2."""
    module = nn.ConvTranspose1d(2, 3, 4)
    assert pieces(module.state_dict()) == [("convolution", ("weight", 1), ("bias", 0))]
    layout = Layout.of(module.state_dict(), 9)
    tokens = layout.gather({name: tensor[None] for name, tensor in module.state_dict().items()})[0]
    for row in range(3):
        assert torch.equal(tokens[row], torch.cat([module.weight[:, row].flatten(), module.bias[row : row + 1]]))
    assert layout.coordinates[:, COORDINATES.index("log_fan_in")].exp().tolist() == pytest.approx([8] * 3)


def test_tensors_without_a_layer():
    tensors = {
        "scale": torch.tensor(1.0), "positions": torch.zeros(1, 3, 4), "gamma": torch.zeros(5, 1, 1),
        "embed_tokens.weight": torch.zeros(6, 2), "steps": torch.tensor(1),
    }  # fmt: skip
    assert pieces(tensors) == [
        ("vector", ("scale", None)), ("array", ("positions", 1)), ("array", ("gamma", None)),
        ("embedding", ("embed_tokens.weight", 0)),
    ]  # fmt: skip
    layout = Layout.of(tensors, 8)
    assert [KINDS[kind] for kind in layout.kinds.tolist()] == ["vector", *["array"] * 4, *["embedding"] * 6]
    assert layout.copied == {"steps": ()}


NAMES = st.lists(
    st.tuples(
        st.sampled_from(["", "a.", "a.norm.", "b.0."]),
        st.sampled_from(["weight", "bias", "running_mean", "weight_ih_l0", "bias_ih_l0", "gamma", "steps"]),
    ).map("".join),
    unique=True, max_size=9,
)  # fmt: skip
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 5]), max_size=4).map(tuple)
TYPES = st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool])


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(names=NAMES, chunk=st.integers(1, 20), networks=st.integers(0, 3), data=st.data())
def test_any_tensors_come_back_bit_for_bit(names, chunk, networks, data):
    random = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    tensors = {name: torch.randn(data.draw(SHAPES), generator=random).mul(9).to(data.draw(TYPES)) for name in names}
    layout = Layout.of(tensors, chunk)
    assert Layout.from_json(json.loads(json.dumps(layout.to_json()))) == layout
    batch = {name: tensor[None].repeat_interleave(networks, 0) for name, tensor in tensors.items()}
    tokens = layout.gather(batch)
    assert tokens.shape == ((networks if batch else 0), layout.tokens, chunk)
    assert not tokens[:, ~layout.mask].any()
    found = layout.scatter(tokens, dtypes={name: tensors[name].dtype for name in layout.shapes}) | layout.beside(batch)
    assert same({name: found[name] for name in names}, batch)


def test_networks_may_be_views_of_any_kind():
    """One network for all, every second one, tensors that share memory, axes the other way round."""
    shared = torch.randn(6, 4, 4)
    tensors = {"a.weight": shared[::2], "b.weight": shared[:3].mT, "c.weight": shared[:1].expand(3, 4, 4)}
    layout = Layout.of({name: tensor[0] for name, tensor in tensors.items()}, 3)
    found = layout.scatter(layout.gather(tensors))
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_tensors_that_are_not_those_of_the_layout_are_named():
    layout = Layout.of(nn.Linear(3, 2).state_dict(), 4)
    with pytest.raises(ArchitectureError, match=r"tensor 'bias'; got no such tensor; expected \[networks, 2\]"):
        layout.gather({"weight": torch.zeros(1, 2, 3)})
    with pytest.raises(ArchitectureError, match=r"tensor 'weight'; got shape \(1, 3, 2\); expected \[networks, 2, 3\]"):
        layout.gather({"weight": torch.zeros(1, 3, 2), "bias": torch.zeros(1, 2)})
    with pytest.raises(ArchitectureError, match=r"another layout; got shape \(1, 3, 4\); expected \[networks, 2, 4\]"):
        layout.scatter(torch.zeros(1, 3, 4))
    with pytest.raises(ArchitectureError, match="at least one value; in chunk; got 0"):
        Layout.of({}, 0)


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.pop("blocks"),
        lambda value: value.update(version=2),
        lambda value: value.update(chunk=0),
        lambda value: value.update(chunk="8"),
        lambda value: value["shapes"][0].append(3),
        lambda value: value["shapes"][0][1].__setitem__(0, -2),
        lambda value: value["shapes"][0][1].__setitem__(0, 3),
        lambda value: value["blocks"].pop(),
        lambda value: value["blocks"].append(value["blocks"][0]),
        lambda value: value["blocks"][0].__setitem__(0, "other"),
        lambda value: value["blocks"][0][1][0].__setitem__(1, 2),
        lambda value: value["blocks"][0][1][0].__setitem__(1, True),
        lambda value: value["blocks"][0][1][0].__setitem__(0, "other"),
        lambda value: value["blocks"][0].__setitem__(1, []),
    ],
)
def test_a_damaged_layout_is_refused(change):
    value = Layout.of(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 3)).state_dict(), 4).to_json()
    value = json.loads(json.dumps(value))
    change(value)
    with pytest.raises(CorruptFileError, match="not a layout"):
        Layout.from_json(value)


def test_whole_architectures_have_layouts():
    layout = layout_of(Architecture.parse("timm/test_resnet?num_classes=10"), 8)
    assert layout.tokens and all(name.endswith("num_batches_tracked") for name in layout.copied)
