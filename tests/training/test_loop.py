import dataclasses
import itertools

import pytest
import torch
from torch import nn

from weightgen.errors import CorruptFileError, WeightgenError
from weightgen.training.loop import LoopConfig, train

CONFIG = LoopConfig(20, learning_rate=0.05, warmup=3, save_every=4)


def module_of(width: int = 4) -> nn.Module:
    torch.manual_seed(0)
    # Normalisation and dropout, so that buffers and randomness must be restored too.
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Dropout(0.3), nn.Linear(width, 1))


def trained(width: int = 4, config: LoopConfig = CONFIG, **options) -> nn.Module:
    module = module_of(width)

    def loss(step: int):
        inputs = torch.randn(16, 3)
        value = (module(inputs).squeeze(1) - inputs.sum(1)).square().mean()
        return value, {"error": value.item()}

    train(module, loss, config, **options)
    return module


def interrupted(state, **options) -> None:
    """A training that is stopped after step 10 and leaves the state of step 8."""

    def stop(done: int, steps: int, text: str) -> None:
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(state=state, progress=stop, **options)


def steps_of(state, **options) -> tuple[dict[str, torch.Tensor], list[int]]:
    seen = []
    module = trained(state=state, progress=lambda done, steps, text: seen.append(done), **options)
    return module.state_dict(), seen


def test_the_loss_falls_and_the_module_ends_in_evaluation_mode():
    texts = []
    module = trained(
        config=dataclasses.replace(CONFIG, steps=150), label="adding",
        progress=lambda done, steps, text: texts.append((done, steps, text)),
    )  # fmt: skip
    assert not module.training
    inputs = torch.randn(200, 3)
    assert (module(inputs).squeeze(1) - inputs.sum(1)).square().mean() < 1.0 < inputs.sum(1).square().mean() / 2
    assert [done for done, _, _ in texts] == list(range(1, 151)) and {steps for _, steps, _ in texts} == {150}
    assert texts[0][2].startswith("adding error ")


def test_an_interrupted_training_ends_with_the_same_bytes(tmp_path):
    state = tmp_path / "folder" / "state.safetensors"
    whole = trained().state_dict()
    interrupted(state)
    resumed, seen = steps_of(state)
    assert seen == list(range(9, 21))
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert not state.exists()


@pytest.mark.parametrize(
    "other",
    [
        {"config": dataclasses.replace(CONFIG, learning_rate=0.01)},
        {"width": 5},
        {"identity": {"seed": 1}},
    ],
    ids=["loop", "module", "identity"],
)
def test_the_state_of_another_training_is_not_used(tmp_path, other):
    state = tmp_path / "state.safetensors"
    interrupted(state, identity={"seed": 0})
    expected = trained(**other).state_dict()
    found, seen = steps_of(state, **other)
    assert seen == list(range(1, 21))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_damaged_state_is_noticed(tmp_path):
    state = tmp_path / "state.safetensors"
    interrupted(state)
    content = bytearray(state.read_bytes())
    content[-1] ^= 1
    state.write_bytes(content)
    with pytest.raises(CorruptFileError, match="does not match its digest"):
        trained(state=state)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_training(value):
    module = module_of()

    def loss(step: int):
        return module(torch.randn(4, 3)).sum() * (value if step == 2 else 1.0), {}

    with pytest.raises(WeightgenError, match=r"toy diverged; in step 2; got (nan|-?inf); lower the rate"):
        train(module, loss, CONFIG, label="toy")
    assert all(parameter.isfinite().all() for parameter in module.parameters())


def test_the_rate_rises_linearly_and_falls_to_nothing():
    config = LoopConfig(100, learning_rate=0.4, warmup=10)
    rates = [config.rate(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.04) and rates[100] == pytest.approx(0)
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[50] == pytest.approx(0.2)
    assert max(rates) < 0.4
    assert LoopConfig(10, learning_rate=0.4, warmup=0).rate(0) == 0.4


def test_the_optimiser_takes_the_rate_of_the_step():
    module = nn.Linear(1, 1, bias=False)
    config = LoopConfig(4, learning_rate=0.1, warmup=2, weight_decay=0.0)
    places = [module.weight.item()]

    def progress(done: int, steps: int, text: str) -> None:
        places.append(module.weight.item())

    # The gradient is always the same, so that Adam moves by the rate itself.
    train(module, lambda step: (module.weight.sum(), {}), config, progress=progress)
    moves = [before - after for before, after in itertools.pairwise(places)]
    assert moves == pytest.approx([config.rate(step) for step in range(4)], abs=1e-6)


def test_gradients_are_clipped():
    module = nn.Linear(1, 2, bias=False)
    config = LoopConfig(1, gradient_norm=0.5)
    train(module, lambda step: (100 * module.weight.sum(), {}), config)
    assert module.weight.grad.norm() == pytest.approx(0.5, abs=1e-3)


def test_frozen_parameters_stay():
    module = module_of()
    module[0].requires_grad_(False)
    kept = module[0].weight.clone()
    train(module, lambda step: (module(torch.randn(8, 3)).square().mean(), {}), CONFIG)
    assert torch.equal(module[0].weight, kept)
