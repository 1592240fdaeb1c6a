import math

import pytest
import torch
from torch import nn

from weightgen.architecture import Architecture
from weightgen.checkpoint import Card, Checkpoint
from weightgen.errors import CorruptFileError, RecipeError, UnknownNameError
from weightgen.tokenizers import GeneralConfig, GeneralTokenizer, QuantiserConfig, WeightTokenizer, WeightTokens
from weightgen.tokenizers.fitting import Fitting, Source, fit_general

QUANTISERS = {
    "residual": QuantiserConfig("residual", 4, 2, 32, beam=2),
    "grouped": QuantiserConfig("grouped", 8, 2, 16, groups=2),
    "scalar": QuantiserConfig("scalar", 4, 1, 15),
}
FITTING = Fitting(pool=4_096, of_tensor=2_048, steps=4, batch=1_024, first=2_048, refinements=1)


def network(recipe: str, seed: int = 0) -> Checkpoint:
    torch.manual_seed(seed)
    architecture = Architecture.parse(recipe)
    return Checkpoint(architecture, architecture.build().state_dict(), Card("digits"))


def of(tensors: dict) -> Checkpoint:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return Checkpoint(Architecture.unknown(shapes), tensors)


RESNET = "weightgen/resnet?blocks=1,1&width=8"
SOURCES = [
    Source(f"{recipe} {seed}", lambda recipe=recipe, seed=seed: network(recipe, seed))
    for recipe in (RESNET, "weightgen/mlp?hidden=32")
    for seed in (1, 2)
]


@pytest.fixture(scope="module", params=QUANTISERS)
def tokenizer(request) -> GeneralTokenizer:
    return fit_general(SOURCES, GeneralConfig(QUANTISERS[request.param], scaled=64), FITTING)


@pytest.fixture(scope="module")
def residual() -> GeneralTokenizer:
    return fit_general(SOURCES, GeneralConfig(QUANTISERS["residual"], scaled=64), FITTING)


def test_one_codebook_for_architectures_never_seen(tokenizer):
    for recipe in (RESNET, "weightgen/cnn?channels=6,8", "weightgen/mlp?activation=tanh&hidden=20"):
        before = network(recipe, 7)
        tokens = tokenizer.encode(before)
        after = Checkpoint(before.architecture, tokenizer.decode(tokens))
        assert after.shapes == before.shapes
        after.build()
        measured = tokenizer.measure(before, tokens)
        assert measured["snr_db"] > 8 and set(measured["snr_db_by_kind"]) >= {"linear"}
        assert measured["tokens"] == len(tokens.codes) and measured["levels"] == tokens.codes.shape[1]


def test_every_bit_is_counted(residual):
    before = of(
        {"weight": torch.randn(64, 32), "bias": torch.randn(64), "scale": torch.randn(()), "steps": torch.tensor(3)}
    )
    tokens = residual.encode(before)
    scales = 64 // 2  # rows of 32 values, two to a scale of 64
    expected = 64 * 8 * 10 + 8 * scales + 8 * 64 + 64 + 32 + 64
    assert residual.bits(tokens) == expected
    assert residual.measure(before, tokens)["bits_per_weight"] == pytest.approx(expected / (64 * 33 + 1), abs=1e-4)


def test_counters_and_short_vectors_are_copied_and_long_ones_are_near(residual):
    module = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32))
    module[1].running_var.copy_(torch.logspace(-6, 4, 32))
    module[1].num_batches_tracked.fill_(12_345)
    state = module.state_dict() | {"temperature": torch.tensor(0.07)}
    decoded = residual.decode(residual.encode(of(state)))
    assert list(decoded) == list(state)
    assert decoded["1.num_batches_tracked"] == 12_345 and decoded["temperature"] == state["temperature"]
    torch.testing.assert_close(decoded["0.bias"], state["0.bias"], rtol=0, atol=0.002)
    torch.testing.assert_close(decoded["1.running_var"], state["1.running_var"], rtol=0.05, atol=0)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_kinds_come_back_and_nothing_runs_over(residual, kind):
    tensors = {"weight": (60_000 * torch.randn(16, 16).sign()).to(kind), "bias": torch.linspace(-6e4, 6e4, 20).to(kind)}
    decoded = residual.decode(residual.encode(of(tensors)))
    for name, tensor in tensors.items():
        assert decoded[name].dtype == kind and decoded[name].isfinite().all()
        assert (decoded[name].double() - tensor.double()).norm() < 0.5 * tensor.double().norm()


def test_odd_tensors(residual):
    shared = torch.randn(8, 12)
    tensors = {
        "empty": torch.zeros(0, 4), "none": torch.zeros(0), "point": torch.tensor(2.0), "zeros": torch.zeros(8, 8),
        "one": shared, "other": shared, "turned": torch.randn(12, 8).T, "flags": torch.tensor([True, False]),
        "tiny": 1e-5 * torch.randn(16, 16), "constant": torch.full((40,), 3.0),
    }  # fmt: skip
    before = of(tensors)
    decoded = residual.decode(residual.encode(before))
    assert {name: tuple(tensor.shape) for name, tensor in decoded.items()} == {
        n: s for n, (_, s) in before.shapes.items()
    }
    assert torch.equal(decoded["zeros"], tensors["zeros"]) and torch.equal(decoded["constant"], tensors["constant"])
    assert torch.equal(decoded["one"], decoded["other"]) and torch.equal(decoded["flags"], tensors["flags"])
    for name in ("one", "turned", "tiny"):
        assert (decoded[name] - tensors[name]).norm() < 0.5 * tensors[name].norm()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["weight", "bias"])
def test_what_is_not_finite_is_named(residual, name, value):
    tensors = {"weight": torch.randn(8, 8), "bias": torch.randn(30)}
    tensors[name].view(-1)[3] = value
    with pytest.raises(CorruptFileError, match=f"NaN or infinity.*'{name}'"):
        residual.encode(of(tensors))


def test_codes_that_cannot_be_are_refused(residual):
    tokens = residual.encode(network(RESNET))
    for code in (-1, 32):
        wrong = tokens.codes.clone()
        wrong[5, 1] = code
        with pytest.raises(CorruptFileError, match=f"outside the codebook.*token 5, level 1.*got {code}"):
            residual.decode(WeightTokens(wrong, tokens.architecture, tokens.shapes, tokens.side, tokens.tokenizer))
    with pytest.raises(CorruptFileError, match="do not fit the shapes"):
        residual.decode(
            WeightTokens(tokens.codes[1:], tokens.architecture, tokens.shapes, tokens.side, tokens.tokenizer)
        )
    with pytest.raises(CorruptFileError, match="codes of another tokenizer.*--tokenizer"):
        residual.decode(WeightTokens(tokens.codes, tokens.architecture, tokens.shapes, tokens.side, "other"))


def test_a_saved_one_is_the_same(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "saved", "# A pico tokenizer\n")
    found = WeightTokenizer.from_pretrained(tmp_path / "saved")
    assert isinstance(found, GeneralTokenizer) and found.id == tokenizer.id and found.config == tokenizer.config
    tokens = tokenizer.encode(network(RESNET))
    assert torch.equal(found.encode(network(RESNET)).codes, tokens.codes)
    tokens.save(tmp_path / "tokens.safetensors")
    read, _ = WeightTokens.load(tmp_path / "tokens.safetensors")
    again, expected = found.decode(read), tokenizer.decode(tokens)
    assert all(torch.equal(again[name], tensor) for name, tensor in expected.items())


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [3, 6, 9])
def test_a_killed_fitting_goes_on_and_gives_the_same_bytes(residual, tmp_path, at):
    config = GeneralConfig(QUANTISERS["residual"], scaled=64)
    fitting = Fitting(**{**vars(FITTING), "save_every": 1})

    def kill(done: int, total: int, text: str) -> None:
        if done == at:
            raise Killed

    state = tmp_path / "state"
    with pytest.raises(Killed):
        fit_general(SOURCES, config, fitting, state=state, progress=kill)
    assert state.exists()
    seen = []
    again = fit_general(SOURCES, config, fitting, state=state, progress=lambda done, total, text: seen.append(done))
    assert seen[0] == at, "the step during which it was killed is the first that is made again"
    assert again.id == residual.id and not state.exists()
    assert fit_general(SOURCES, config, Fitting(**{**vars(FITTING), "seed": 1})).id != residual.id


def test_sizes_that_cannot_be():
    with pytest.raises(RecipeError, match="no one code"):
        QuantiserConfig("scalar", 16, 1, 16)
    with pytest.raises(RecipeError, match="groups"):
        QuantiserConfig("residual", 8, 2, 16, groups=2)
    with pytest.raises(UnknownNameError, match="residual"):
        QuantiserConfig("residul")
