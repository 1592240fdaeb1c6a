"""What the operators promise to torch, and how they refuse arguments that do not fit one another."""

import re

import pytest
import torch

from weightgen.errors import KernelError
from weightgen.kernels import Segment, gather_tokens, scatter_codes, scatter_tokens, table_of
from weightgen.kernels.ops import CODES

NETWORKS, TOKENS, CHUNK = 3, 5, 4
# A matrix [3, 5] with a vector [3] in three rows of two tokens less one, then a vector of four alone.
TABLE = table_of([
    Segment(0, 2, 1, 5, 1, 0, 5, 1, 0, 8, 0, 0, 2),
    Segment(1, 2, 1, 1, 1, 0, 1, 1, 5, 8, 2, 0),
    Segment(2, 1, 1, 1, 4, 0, 4, 4, 16, 4, 0),
])  # fmt: skip
SHAPES, SIZES = [(2, 5), (2,), (4,)], [10, 2, 4]


def arguments(dtype=torch.float64, networks: int = NETWORKS) -> dict:
    random = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64).to(dtype)

    order = torch.cat(
        [torch.rand(networks, 2, generator=random).argsort(1), torch.rand(networks, 5, generator=random).argsort(1)], 1
    )
    return {
        "tensors": [normal(networks, *shape) for shape in SHAPES],
        "tokens": normal(networks, TOKENS, CHUNK),
        "codes": torch.randint(0, 6, (networks, TOKENS, 2), generator=random),
        "codebooks": normal(2, 6, CHUNK),
        "permutations": order,
        "shift": normal(TOKENS, CHUNK),
        "scales": normal(3).abs() + 0.5,
    }


def gathered(one: dict, tensors, dtype=torch.float64) -> torch.Tensor:
    return gather_tokens(tensors, TABLE, TOKENS, CHUNK, dtype, one["permutations"], one["shift"], one["scales"])


def scattered(one: dict, tokens, dtype=torch.float64) -> torch.Tensor:
    return scatter_tokens(tokens, TABLE, SIZES, dtype, one["permutations"], one["shift"], one["scales"])


def looked_up(one: dict, codebooks, dtype=torch.float64) -> torch.Tensor:
    options = (SIZES, dtype, one["permutations"], one["shift"], one["scales"])
    return scatter_codes(one["codes"], codebooks, TABLE, *options)


def test_gradients(twin):
    one = {name: to(value, twin) for name, value in arguments().items()}
    tensors = [tensor.requires_grad_() for tensor in one["tensors"]]
    assert torch.autograd.gradcheck(lambda *given: gathered(one, given), tensors)
    assert torch.autograd.gradgradcheck(lambda *given: gathered(one, given), tensors)
    assert torch.autograd.gradcheck(lambda given: scattered(one, given), [one["tokens"].requires_grad_()])
    assert torch.autograd.gradgradcheck(lambda given: scattered(one, given), [one["tokens"]])
    assert torch.autograd.gradcheck(lambda given: looked_up(one, given), [one["codebooks"].requires_grad_()])


def to(value, device: str):
    return [tensor.to(device) for tensor in value] if isinstance(value, list) else value.to(device)


def test_an_output_that_is_not_used_has_no_gradient(twin):
    tokens = torch.zeros(2, TOKENS, CHUNK, requires_grad=True, device=twin)
    scatter_tokens(tokens, plain_table(), SIZES, torch.float32).split(SIZES, 1)[1].sum().backward()
    assert tokens.grad.sum(0).tolist() == [[0] * 4, [0, 2, 0, 0], [0] * 4, [0, 2, 0, 0], [0] * 4]


def test_gradients_of_mixed_types_have_the_types_of_their_tensors(twin):
    kinds = [torch.float32, torch.float16, torch.bfloat16]
    tensors = [torch.ones(2, *shape, dtype=kind, device=twin) for shape, kind in zip(SHAPES, kinds, strict=True)]
    for tensor in tensors:
        tensor.requires_grad_()
    gather_tokens(tensors, plain_table(), TOKENS, CHUNK, torch.float32).mul(2).sum().backward()
    assert [tensor.grad.dtype for tensor in tensors] == kinds
    assert all(bool((tensor.grad == 2).all()) for tensor in tensors)


def plain_table() -> torch.Tensor:
    table = TABLE.clone()
    table[:, -2:] = -1
    return table


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # opcheck looks at it
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_operators_keep_the_rules_of_torch(kind):
    one = arguments(kind)
    tensors = [tensor.requires_grad_() for tensor in one["tensors"]]
    moved = (one["permutations"], one["shift"], one["scales"])
    torch.library.opcheck(torch.ops.weightgen.gather_tokens, (tensors, TABLE, TOKENS, CHUNK, kind, *moved))
    torch.library.opcheck(
        torch.ops.weightgen.scatter_tokens, (one["tokens"].requires_grad_(), TABLE, SIZES, kind, *moved)
    )
    books = one["codebooks"].requires_grad_()
    for codes in (one["codes"], one["codes"].to(torch.uint8)):
        torch.library.opcheck(torch.ops.weightgen.scatter_codes, (codes, books, TABLE, SIZES, kind, *moved))


def test_whole_graphs_compile():
    one = arguments(torch.float32)

    def there_and_back(tensors):
        tokens = gathered(one, [tensor * 2 for tensor in tensors], torch.float32)
        return scattered(one, tokens, torch.float32) + 1

    compiled = torch.compile(there_and_back, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(one["tensors"]), there_and_back(one["tensors"]))
    decoded = torch.compile(
        lambda books: looked_up(one, books * 2, torch.float32) + 1, fullgraph=True, backend="aot_eager"
    )
    assert torch.equal(decoded(one["codebooks"]), looked_up(one, one["codebooks"] * 2, torch.float32) + 1)


def test_mapped_networks_are_more_networks(twin):
    many = [{name: to(value, twin) for name, value in arguments(networks=2).items()} for _ in range(3)]
    one = many[0]
    stacks = [torch.stack([tensor * scale for scale in (1, 2, 3)], 1) for tensor in one["tensors"]]
    mapped = torch.func.vmap(lambda *tensors: gathered(one, tensors), in_dims=1)(*stacks)
    for index, found in enumerate(mapped):
        assert torch.equal(found, gathered(one, [stack[:, index] for stack in stacks]))
    back = torch.func.vmap(lambda tokens: scattered(one, tokens))(mapped)
    for index in range(3):
        assert torch.equal(back[index], scattered(one, mapped[index]))


def test_a_mapped_constant_is_taken_one_at_a_time(twin):
    one = {name: to(value, twin) for name, value in arguments().items()}
    scales = torch.stack([one["scales"], 2 * one["scales"]])
    found = torch.func.vmap(lambda by: gathered(one | {"scales": by}, one["tensors"]))(scales)
    for index in range(2):
        assert torch.equal(found[index], gathered(one | {"scales": scales[index]}, one["tensors"]))
    books = torch.stack([one["codebooks"], 2 * one["codebooks"]], 1)
    several = torch.func.vmap(lambda given: looked_up(one, given), in_dims=1)(books)
    for index in range(2):
        assert torch.equal(several[index], looked_up(one, books[:, index]))


def test_gradients_pass_through_mapped_networks(twin):
    one = {name: to(value, twin) for name, value in arguments().items()}
    tokens = torch.stack([one["tokens"], 2 * one["tokens"]]).requires_grad_()
    weights = torch.arange(16.0, device=twin, dtype=torch.float64)
    found = torch.func.vmap(lambda given: scatter_tokens(given, plain_table(), SIZES, torch.float64))(tokens)
    (found * weights).sum().backward()
    expected = torch.zeros(TOKENS, CHUNK, dtype=torch.float64)
    # Two rows of five values of the first tensor and one of the second, then the third.
    expected.view(-1)[[*range(5), *range(8, 13), 5, 13, *range(16, 20)]] = torch.arange(16.0, dtype=torch.float64)
    assert torch.equal(tokens.grad.cpu(), expected.expand(2, NETWORKS, -1, -1))


@pytest.mark.parametrize("shape", [(), (1,), (2, 1)], ids=str)
def test_trailing_axes_do_not_matter(twin, shape):
    """A 0-d tensor of each network, and axes of length 1."""
    table = table_of([Segment(0, 1, 1, 1, max(1, torch.Size(shape).numel()), 0, 1, 1, 0, 4, 0)])
    tensor = torch.randn(2, *shape, device=twin)
    tokens = gather_tokens([tensor], table, 1, 4, torch.float32)
    assert torch.equal(tokens.flatten(1)[:, : tensor[0].numel()], tensor.view(2, -1))


def test_tensors_need_not_be_contiguous(twin):
    one = {name: to(value, twin) for name, value in arguments().items()}
    strided = [tensor.movedim(0, -1).contiguous().movedim(-1, 0) for tensor in one["tensors"]]
    strided[2] = one["tensors"][2].repeat_interleave(2, 1)[:, ::2]
    assert not any(tensor.is_contiguous() for tensor in strided)
    tokens = gathered(one, strided)
    assert torch.equal(tokens, gathered(one, one["tensors"]))
    # One network for all, as `expand` makes it, is one for each.
    same = [tensor[:1].expand(NETWORKS, *[-1] * (tensor.dim() - 1)) for tensor in one["tensors"]]
    assert torch.equal(gathered(one, same), gathered(one, [tensor.clone() for tensor in same]))
    turned = tokens.transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(scattered(one, turned), scattered(one, tokens))


@pytest.mark.parametrize(("code", "place"), [(6, (0, 0, 1)), (-1, (2, 4, 0)), (2**40, (1, 3, 1))])
def test_a_code_outside_the_codebook_is_named(twin, code, place):
    one = {name: to(value, twin) for name, value in arguments().items()}
    one["codes"][place] = code
    where = "network {}, token {}, level {}".format(*place)
    with pytest.raises(KernelError, match=rf"a code outside the codebook; in {where}; got {code}; expected 0 to 5"):
        looked_up(one, one["codebooks"])


def test_narrow_codes_are_the_same_codes(twin):
    one = {name: to(value, twin) for name, value in arguments().items()}
    books = one["codebooks"].requires_grad_()
    for kind in CODES:
        narrow = one | {"codes": one["codes"].to(kind, copy=True)}
        assert torch.equal(looked_up(narrow, books), looked_up(one, books))
        pair = [torch.autograd.grad(looked_up(given, books).square().sum(), books)[0] for given in (narrow, one)]
        assert torch.equal(*pair)
        narrow["codes"][1, 2, 1] = 7
        with pytest.raises(KernelError, match="in network 1, token 2, level 1; got 7; expected 0 to 5"):
            looked_up(narrow, books)


def changed(number: int, **fields) -> torch.Tensor:
    segments = [Segment._make(row) for row in TABLE.tolist()]
    segments[number] = segments[number]._replace(**fields)
    return table_of(segments)


@pytest.mark.parametrize(
    "fields",
    [
        {"tensor": 3}, {"tensor": -1}, {"rows": 3}, {"rows": 0}, {"row_block": 2**40}, {"row_block": 0}, {"units": 6},
        {"block": 2}, {"source_offset": 1}, {"source_offset": -1}, {"source_row_stride": 6}, {"source_unit_stride": 2},
        {"target_offset": 12}, {"target_offset": -1}, {"target_row_stride": 16}, {"padding": -1}, {"padding": 8},
    ],
    ids=str,
)  # fmt: skip
def test_a_segment_that_reaches_outside_is_refused(twin, fields):
    one = arguments()
    with pytest.raises(KernelError, match="segment 0; got Segment"):
        gather_tokens(one["tensors"], changed(0, **fields), TOKENS, CHUNK, torch.float64, one["permutations"])
    with pytest.raises(KernelError, match="segment 0; got Segment"):
        scatter_tokens(one["tokens"], changed(0, **fields), SIZES, torch.float64, one["permutations"])


@pytest.mark.parametrize(
    "change",
    [
        lambda order: None,
        lambda order: order[:, :6],
        lambda order: order[:2],
        lambda order: order.int(),
        lambda order: order.clone().index_fill_(1, torch.tensor([1]), 2),
        lambda order: order.clone().index_fill_(1, torch.tensor([1]), -1),
        lambda order: order * 0,
    ],
    ids=["none", "short", "few", "int32", "too large", "negative", "repeating"],
)
def test_what_is_no_permutation_is_refused(change):
    one = arguments()
    one["permutations"] = change(one["permutations"])
    with pytest.raises(KernelError, match="permutation"):
        gathered(one, one["tensors"])
    with pytest.raises(KernelError, match="permutation"):
        scattered(one, one["tokens"])
    with pytest.raises(KernelError, match="permutation"):
        looked_up(one, one["codebooks"])


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda one: gathered(one, []), "nothing to gather"),
        (lambda one: gathered(one, [torch.zeros(())]), "nothing to gather"),
        (lambda one: gathered(one, [*one["tensors"][:2], torch.zeros(2, 4)]), "tensor 2; got 2 networks"),
        (lambda one: gathered(one, [one["tensors"][0].long(), *one["tensors"][1:]]), "moved but not computed.*int64"),
        (lambda one: gathered(one | {"shift": one["shift"][:-1]}, one["tensors"]), "reference of the wrong shape"),
        (lambda one: gathered(one | {"scales": one["scales"][:-1]}, one["tensors"]), "scales that do not fit"),
        (lambda one: scattered(one, one["tokens"][0]), "tokens of the wrong shape"),
        (lambda one: looked_up(one | {"codes": one["codes"][..., :1]}, one["codebooks"]), "do not fit the codebooks"),
        (
            lambda one: looked_up(one | {"codes": one["codes"].to(torch.int8)}, one["codebooks"]),
            "do not fit the codebooks",
        ),
        (lambda one: looked_up(one, one["codebooks"][0]), "do not fit the codebooks"),
        (
            lambda one: gather_tokens(one["tensors"], TABLE[:, :-1], TOKENS, CHUNK, torch.float64),
            re.escape("table of segments of the wrong kind"),
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(call, match):
    with pytest.raises(KernelError, match=match):
        call(arguments())


def test_constants_take_no_gradient_in_silence():
    one = arguments()
    tensors = [tensor.requires_grad_() for tensor in one["tensors"]]
    with pytest.raises(KernelError, match="constants"):
        gathered(one | {"scales": one["scales"].requires_grad_()}, tensors)
