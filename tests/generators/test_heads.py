import pytest
import torch

from weightgen.generators.heads import ChunkedHead, FullHead, LowRankHead

SHAPES = {"conv.weight": (6, 4, 3, 3), "conv.bias": (6,), "scale": (), "tiny.weight": (2, 2)}
HEADS = {
    "full": lambda: FullHead(SHAPES, 16),
    "chunked": lambda: ChunkedHead(SHAPES, 16, 50),
    "low rank": lambda: LowRankHead(SHAPES, 16, 2),
}


@pytest.mark.parametrize("make", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_heads(make, batch):
    torch.manual_seed(0)
    head = make()
    features = torch.randn(*batch, 16)
    changes = head(features)
    assert list(changes) == list(SHAPES)
    for name, shape in SHAPES.items():
        assert changes[name].shape == (*batch, *shape)
        assert not changes[name].any(), "no change at first"

    sum(change.sum() for change in changes.values()).backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    one, other = head(torch.randn(16)), head(torch.randn(16))
    for name in SHAPES:
        assert (one[name] != other[name]).any(), "every value depends on the condition"


def test_a_batch_is_each_by_itself():
    for make in HEADS.values():
        head = make()
        torch.nn.init.normal_(next(head.parameters()))
        features = torch.randn(3, 16)
        together, alone = head(features), head(features[1])
        for name in SHAPES:
            assert torch.allclose(together[name][1], alone[name], atol=1e-5)


def test_the_rank_is_what_was_asked_for():
    head = LowRankHead(SHAPES, 16, 2)
    torch.nn.init.normal_(head.right["conv/weight"])
    change = head(torch.randn(16))["conv.weight"].flatten(1)
    assert torch.linalg.matrix_rank(change) == 2
    assert list(head.matrices) == ["conv.weight"], "where factors are no smaller than the matrix it is written in full"


def test_sizes():
    shapes = {"weight": (256, 256, 3, 3)}

    def size(head):
        return sum(parameter.numel() for parameter in head.parameters())

    values = 256 * 256 * 9
    assert size(FullHead(shapes, 128)) == 128 * values
    assert size(ChunkedHead(shapes, 128, 4096)) < 0.95 * values
    assert size(LowRankHead(shapes, 128, 8)) < 0.05 * values


def test_published_initial_values():
    torch.manual_seed(0)
    head = FullHead({"weight": (64, 32), "bias": (64,)}, 128)
    head.start_published()
    rows = head.weight.split([2048, 64])
    assert rows[0].std().item() == pytest.approx((2 / 2048) ** 0.5, rel=0.02)
    assert not rows[1].any()
