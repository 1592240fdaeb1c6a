import dataclasses
import shutil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weightgen.errors import CorruptFileError, MissingDataError, UnknownNameError, WeightgenError
from weightgen.generators.generator import Generator, generators
from weightgen.generators.igpg import IGPG, Prior, PriorConfig, Sampling, _draw
from weightgen.instructions import Request

CNN, MLP = "weightgen/cnn?channels=4", "weightgen/mlp?hidden=8"
GREEDY = Sampling(temperature=1e-4)


def request_for(architecture: str, instruction: str = "a network that reads handwritten digits") -> Request:
    return Request(instruction, "digits", architecture)


@pytest.fixture(scope="module")
def prior() -> Prior:
    """Untrained, so that every code it gives depends on all that came before."""
    torch.manual_seed(0)
    return Prior(PriorConfig(width=32, layers=2, heads=2), codebook=16, levels=3, instruction=8).eval()


@pytest.fixture(scope="module")
def told(pico):
    """Coordinates of a sequence, and two instructions."""
    torch.manual_seed(1)
    return pico.tokenizer.coordinates(pico.cells[0].architecture), torch.randn(2, 8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_it_is_a_registered_generator(pico):
    assert isinstance(pico.igpg, Generator)
    assert generators["igpg"] is IGPG


@pytest.mark.parametrize("architecture", [MLP, CNN])
def test_networks_load_strictly_and_are_finite(pico, architecture):
    networks = pico.igpg.sample(request_for(architecture), 3, seed=0)
    assert len(networks) == 3
    for index, network in enumerate(networks):
        assert str(network.architecture) == architecture and network.non_finite() == []
        assert network.build()(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
        card = network.card
        assert (card.task, card.origin, card.made_with["index"]) == ("digits", "generated", index)
        assert card.made_with["generator"] == pico.igpg.provenance["id"]
        assert card.preprocessing == pico.zoo.row("digits-mlp-8-s000").card.preprocessing


def test_the_same_seed_gives_the_same_networks_and_another_seed_others(pico):
    first, again, other = (
        [network.id for network in pico.igpg.sample(request_for(CNN), 3, seed)] for seed in (5, 5, 6)
    )
    assert first == again
    assert set(first).isdisjoint(other) and len(set(first)) == 3


def test_sampling_leaves_the_global_random_state_alone(pico):
    before = torch.get_rng_state()
    pico.igpg.sample(request_for(CNN), 1, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_cached_sampling_is_teacher_forcing(prior, told):
    codes = prior.sample(*told, GREEDY, seeded())
    assert codes.shape == (2, len(told[0]), 3) and len(codes.unique()) > 4
    with torch.no_grad():
        logits = prior(codes, *told)
    assert logits.shape == (*codes.shape, 16)
    chosen = logits.gather(-1, codes[..., None]).squeeze(-1)
    torch.testing.assert_close(chosen[:, 1:], logits.max(-1).values[:, 1:], rtol=0, atol=1e-4)


def test_a_code_depends_on_what_came_before_and_on_nothing_else(prior, told):
    codes = torch.randint(16, (2, len(told[0]), 3), generator=seeded())
    changed = codes.clone()
    changed[:, 7, 1] = (changed[:, 7, 1] + 1) % 16
    with torch.no_grad():
        before, after = prior(codes, *told), prior(changed, *told)
        otherwise = prior(codes, told[0], told[1].flip(0))
    torch.testing.assert_close(after[:, :7], before[:, :7])
    torch.testing.assert_close(after[:, 7, :2], before[:, 7, :2])
    assert (after[:, 7, 2] - before[:, 7, 2]).abs().max() > 1e-3
    assert (after[:, 8:] - before[:, 8:]).abs().amax((0, 2, 3)).min() > 1e-5
    assert (otherwise - before).abs().max() > 1e-3


def test_a_tiny_top_p_is_greedy(prior, told):
    expected = prior.sample(*told, GREEDY, seeded(0))
    assert torch.equal(prior.sample(*told, Sampling(top_p=1e-6), seeded(1)), expected)
    assert not torch.equal(prior.sample(*told, Sampling(), seeded(1)), expected)


@pytest.mark.parametrize(
    ("sampling", "shares"),
    [
        (Sampling(), [0.5, 0.3, 0.15, 0.05]),
        (Sampling(top_p=0.6), [0.625, 0.375, 0, 0]),
        (Sampling(top_p=0.45), [1, 0, 0, 0]),
        (Sampling(temperature=0.5), [0.25 / 0.365, 0.09 / 0.365, 0.0225 / 0.365, 0.0025 / 0.365]),
        (Sampling(temperature=0.5, top_p=0.8), [0.25 / 0.34, 0.09 / 0.34, 0, 0]),
    ],
)
def test_codes_are_drawn_with_the_probabilities_asked_for(sampling, shares):
    order = torch.tensor([2, 0, 3, 1])  # the likeliest is not the first
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()[order].expand(20_000, 4)
    drawn = order[_draw(logits, sampling, seeded())]
    found = torch.bincount(drawn, minlength=4) / len(drawn)
    assert found.tolist() == pytest.approx(shares, abs=0.015)
    assert all(found[index] == 0 for index, share in enumerate(shares) if share == 0)


@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}])
def test_impossible_sampling_is_refused(options):
    with pytest.raises(WeightgenError, match=r"impossible sampling.*expected temperature above 0 and top_p in"):
        Sampling(**options)


@pytest.mark.parametrize("options", [{"temperature": float("nan")}, {"top_p": float("nan")}])
def test_sampling_with_nan_is_refused(options):
    with pytest.raises(WeightgenError, match="impossible sampling"):
        Sampling(**options)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="width 30 is not a multiple of heads 4"):
        PriorConfig(width=30, heads=4)


def test_a_request_without_an_architecture_is_refused(pico):
    with pytest.raises(WeightgenError, match="names no architecture"):
        pico.igpg.sample(dataclasses.replace(request_for(CNN), architecture=None))


def test_an_architecture_it_never_saw_is_named_with_its_neighbours(pico):
    with pytest.raises(UnknownNameError, match=r"channels=5.*channels=4"):
        pico.igpg.sample(request_for("weightgen/cnn?channels=5"))


def copied(pico, root, kind: str = "checkpoints", files: dict | None = None):
    """The pico tokenizer and generator elsewhere, one of them with other files; the generator's folder."""
    for name in ("tokenizers", "checkpoints"):
        shutil.rmtree(root / name, ignore_errors=True)
        shutil.copytree(pico.root / name, root / name)
    for name, content in (files or {}).items():
        (root / kind / "pico" / name).write_bytes(content)
    return root / "checkpoints/pico"


def test_a_saved_generator_gives_the_same_networks(pico, tmp_path):
    found = IGPG.from_pretrained(copied(pico, tmp_path))
    assert isinstance(found, Generator)
    assert found.sampling == Sampling(top_p=0.9) and found.provenance == pico.igpg.provenance
    for architecture in (MLP, CNN):
        expected = [network.id for network in pico.igpg.sample(request_for(architecture), 2, seed=3)]
        assert [network.id for network in found.sample(request_for(architecture), 2, seed=3)] == expected
    for cell, remembered in pico.igpg.remembered.items():
        assert torch.equal(found.remembered[cell].codes, remembered.codes)
        assert torch.equal(found.remembered[cell].errors, remembered.errors)
        assert found.remembered[cell].ids == list(remembered.ids)
    found.save_pretrained(tmp_path / "again", "# A pico generator\n")
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == pico.files("checkpoints")


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_flipped_bit_is_noticed(pico, tmp_path, name, data):
    content = bytearray(pico.files("checkpoints")[name])
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CorruptFileError):
        IGPG.from_pretrained(copied(pico, tmp_path, files={name: bytes(content)}))


@pytest.mark.parametrize("kind", ["checkpoints", "tokenizers"])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_noticed(pico, tmp_path, kind, name, share):
    content = pico.files(kind)[name]
    with pytest.raises(CorruptFileError):
        IGPG.from_pretrained(copied(pico, tmp_path, kind, {name: content[: int(share * len(content))]}))


def test_the_tokenizer_of_another_generator_is_refused(pico, tmp_path):
    folder = copied(pico, tmp_path)
    other = type(pico.tokenizer)(pico.tokenizer.codecs, pico.tokenizer.normalizers, {"id": "another"})
    other.save_pretrained(tmp_path / "tokenizers/pico")
    with pytest.raises(CorruptFileError, match="got another; expected pico-tokenizer"):
        IGPG.from_pretrained(folder)


def test_what_is_missing_is_named(pico, tmp_path):
    folder = copied(pico, tmp_path)
    shutil.rmtree(tmp_path / "tokenizers")
    with pytest.raises(UnknownNameError, match="unknown tokenizer.*'pico'"):
        IGPG.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(MissingDataError, match="model.safetensors"):
        IGPG.from_pretrained(folder)
    with pytest.raises(UnknownNameError, match="unknown generator"):
        IGPG.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(CorruptFileError, match="another kind"):
        IGPG.from_pretrained(pico.root / "tokenizers/pico")
