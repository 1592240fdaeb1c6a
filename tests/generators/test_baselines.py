import pytest
import torch

from weightgen.architecture import Architecture
from weightgen.errors import UnknownNameError
from weightgen.evaluation.novelty import Reference, measure_novelty
from weightgen.generators.baselines import baselines, interpolated, noisy, soup

ARCHITECTURE = Architecture.parse("weightgen/mlp?hidden=4")
NETWORKS = 20


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def zoo() -> dict[str, torch.Tensor]:
    shapes = ARCHITECTURE.parameter_shapes()
    return {name: torch.randn(NETWORKS, *shape, generator=seeded(9)) for name, shape in shapes.items()}


def flat(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """`[networks, values]`"""
    return torch.cat([tensor.flatten(1) for tensor in tensors.values()], dim=1)


@pytest.mark.parametrize("name", list(baselines))
def test_every_baseline_is_seeded_and_keeps_the_shapes(zoo, name):
    before = {each: tensor.clone() for each, tensor in zoo.items()}
    first, again, other = (baselines[name](zoo, 5, seeded(seed)) for seed in (1, 1, 2))
    assert {each: tensor.shape for each, tensor in first.items()} == {
        each: (5, *shape) for each, shape in ARCHITECTURE.parameter_shapes().items()
    }
    assert all(tensor.isfinite().all() and tensor.dtype == torch.float32 for tensor in first.values())
    assert torch.equal(flat(first), flat(again)) and not torch.equal(flat(first), flat(other))
    assert all(torch.equal(tensor, before[each]) for each, tensor in zoo.items())


def test_an_unknown_baseline_is_named_with_its_neighbours():
    with pytest.raises(UnknownNameError, match="soup of 3.*soup of 2"):
        baselines["soup of 3"]


def test_a_checkpoint_is_no_new_network(zoo):
    drawn = baselines["nearest checkpoint"](zoo, 6, seeded())
    assert all(any(torch.equal(one, known) for known in flat(zoo)) for one in flat(drawn))
    errors = torch.rand(NETWORKS, 50, generator=seeded(3)) < 0.2
    reference = Reference.of(ARCHITECTURE, zoo, errors)
    novelty = measure_novelty(reference, drawn, errors[:6])
    assert novelty.distance_ratio.max() < 1e-3
    assert not novelty.novel_and_performant.any()


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_noise_has_the_deviation_it_is_said_to_have(zoo, share):
    drawn, known, deviation = flat(noisy(share)(zoo, 400, seeded())), flat(zoo), flat(zoo).std(0)
    nearest = torch.cdist(drawn, known).argmin(1)
    added = (drawn - known[nearest]) / deviation
    assert added.std().item() == pytest.approx(share, rel=0.02)
    assert len(nearest.unique()) == NETWORKS


def test_an_interpolation_lies_on_the_line_between_two(zoo):
    known = flat(zoo)
    for one in flat(interpolated(0.2)(zoo, 6, seeded())):
        first, second = torch.cdist(one[None], known)[0].argsort()[:2]
        distance = (one - known[first]).norm()
        if distance < 1e-4:
            continue  # a network with itself
        torch.testing.assert_close(one, known[first].lerp(known[second], 0.2))


def test_a_soup_of_all_is_the_mean(zoo):
    for size in (NETWORKS, 100):
        drawn = soup(size)(zoo, 3, seeded())
        torch.testing.assert_close(flat(drawn), flat(zoo).mean(0).expand(3, -1), rtol=1e-4, atol=1e-6)


def test_a_soup_of_two_is_of_two_different_ones(zoo):
    known = flat(zoo)
    pairs = [(known[i] + known[j]) / 2 for i in range(NETWORKS) for j in range(i)]
    distances = torch.cdist(flat(soup(2)(zoo, 20, seeded())).double(), torch.stack(pairs).double())
    assert distances.min(1).values.max() < 1e-4


def test_gaussian_weights_have_the_zoos_mean_and_deviation_each(zoo):
    drawn, known = flat(baselines["per-weight Gaussian"](zoo, 4000, seeded())), flat(zoo)
    assert ((drawn.mean(0) - known.mean(0)) / known.std(0)).abs().max() < 0.1
    assert (drawn.std(0) / known.std(0) - 1).abs().max() < 0.1
    # Independent of one another, which the zoo's own networks are only by chance.
    assert torch.corrcoef(drawn[:, :20].T).fill_diagonal_(0).abs().max() < 0.1


def test_latent_density_draws_an_anchor_for_every_component():
    """The networks lie on a cross: with one anchor for both components no sample would lie off its two lines."""
    cross = torch.tensor([[100.0, 0.0], [-100.0, 0.0], [0.0, 10.0], [0.0, -10.0]]).repeat(100, 1)
    drawn = baselines["latent KDE"]({"weight": cross}, 2000, seeded())["weight"]
    off = ((drawn[:, 0].abs() > 50) & (drawn[:, 1].abs() > 5)).double().mean()
    assert 0.2 < off < 0.35


def test_latent_density_keeps_to_the_span_of_the_zoo(zoo):
    known = flat(zoo)
    drawn = flat(baselines["latent KDE"](zoo, 30, seeded())) - known.mean(0)
    span = torch.linalg.svd(known - known.mean(0), full_matrices=False).Vh[: NETWORKS - 1]
    assert (drawn - drawn @ span.T @ span).norm(dim=1).max() < 1e-2
    nearest = torch.cdist(drawn + known.mean(0), known).min(1).values
    spacing = torch.cdist(known, known).fill_diagonal_(float("inf")).min(1).values
    assert nearest.median() > 0.5 * spacing.median()
