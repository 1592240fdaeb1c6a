import itertools

import torch

from weightgen.tokenizers.quantiser import health, refined, search


def test_a_wide_beam_finds_the_best_of_all_codes():
    torch.manual_seed(0)
    books, values = torch.randn(3, 6, 4), torch.randn(50, 4)
    codes = search(values, books, 36)
    every = torch.tensor(list(itertools.product(range(6), repeat=3)))
    sums = books[torch.arange(3), every].sum(1)
    best = torch.cdist(values, sums).min(1).values
    found = (books[torch.arange(3), codes].sum(1) - values).norm(dim=1)
    torch.testing.assert_close(found, best, rtol=1e-4, atol=1e-4)


def test_a_beam_of_one_takes_the_nearest_at_each_level():
    torch.manual_seed(0)
    books, values = torch.randn(2, 8, 3), torch.randn(40, 3)
    first = torch.cdist(values, books[0]).argmin(1)
    second = torch.cdist(values - books[0, first], books[1]).argmin(1)
    assert torch.equal(search(values, books, 1), torch.stack([first, second], 1))


def test_refining_loses_less_and_leaves_unused_entries():
    torch.manual_seed(0)
    values, books = torch.randn(3_000, 4), torch.randn(2, 16, 4)
    books[1, 7] = 1_000.0

    def error(one: torch.Tensor) -> float:
        return (one[torch.arange(2), search(values, one, 4)].sum(1) - values).square().mean().item()

    better = refined(values, search(values, books, 4), books)
    assert error(better) < 0.8 * error(books)
    assert torch.equal(better[1, 7], books[1, 7])


def test_health():
    even, alone = torch.arange(64) % 8, torch.full((64,), 3)
    first, second = health(torch.stack([even, alone], 1), 16)
    assert first == {"perplexity": 8.0, "dead": 0.5} and second == {"perplexity": 1.0, "dead": 0.9375}
