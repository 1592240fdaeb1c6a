import pytest
import torch

from weightgen.architecture import Architecture
from weightgen.checkpoint import Checkpoint
from weightgen.tasks import evaluate, get_task
from weightgen.training import population
from weightgen.training.population import (
    Run,
    Schedule,
    initial,
    population_predictions,
    stack,
    train_population,
    unstack,
)

TASK = get_task("digits")
ARCHITECTURE = Architecture.parse("weightgen/mlp?hidden=8")
RUNS = [Run(0, 0.02, 0.0), Run(1, 0.03, 0.01), Run(7, 0.01, 0.001)]


def test_a_population_learns_to_read_digits():
    tensors = train_population(ARCHITECTURE, TASK, RUNS, Schedule(250, 32))
    found = population_predictions(ARCHITECTURE, tensors, TASK.test()[0])
    accuracies = (found == TASK.test()[1]).float().mean(1)
    assert accuracies.min() > 0.8
    for state, accuracy in zip(unstack(tensors), accuracies, strict=True):
        alone = evaluate(Checkpoint(ARCHITECTURE, state).build(), TASK)["metrics"]["accuracy"]
        assert alone == pytest.approx(accuracy.item(), abs=0.003)


def test_training_together_is_training_alone():
    together = unstack(train_population(ARCHITECTURE, TASK, RUNS, Schedule(20, 16)))
    for run, state in zip(RUNS, together, strict=True):
        (alone,) = unstack(train_population(ARCHITECTURE, TASK, [run], Schedule(20, 16)))
        for name in state:
            torch.testing.assert_close(state[name], alone[name], rtol=1e-4, atol=1e-5)


def test_training_is_adamw_of_torch():
    run = Run(3, 0.01, 0.1)
    (found,) = unstack(train_population(ARCHITECTURE, TASK, [run], Schedule(12, 16)))
    (start,) = unstack(initial(ARCHITECTURE, [3]))
    module = Checkpoint(ARCHITECTURE, start).build()
    optimizer = torch.optim.AdamW(module.parameters(), lr=run.learning_rate, weight_decay=run.weight_decay)
    order = population._Order([3], 1097, 16)
    images, labels = TASK.train()
    for step in range(12):
        optimizer.param_groups[0]["lr"] = run.learning_rate * (1 - step / 12)
        index = order.next()[0]
        optimizer.zero_grad()
        TASK.loss(module(images[index]), labels[index]).backward()
        optimizer.step()
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5)


def test_an_interrupted_training_ends_with_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(population, "STATE_EVERY", 10)
    schedule = Schedule(90, 16)  # more than an epoch of 68 steps
    whole = train_population(ARCHITECTURE, TASK, RUNS, schedule)
    state = tmp_path / "state.safetensors"

    def stop(step: int, loss: float) -> None:
        if step == 75:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_population(ARCHITECTURE, TASK, RUNS, schedule, state=state, progress=stop)
    steps = []
    resumed = train_population(
        ARCHITECTURE, TASK, RUNS, schedule, state=state, progress=lambda step, loss: steps.append(step)
    )
    assert steps == list(range(71, 91))
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_the_state_of_another_training_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(population, "STATE_EVERY", 2)
    state = tmp_path / "state.safetensors"
    train_population(ARCHITECTURE, TASK, RUNS[:1], Schedule(4, 16), state=state)
    other = train_population(ARCHITECTURE, TASK, RUNS[1:2], Schedule(4, 16), state=state)
    expected = train_population(ARCHITECTURE, TASK, RUNS[1:2], Schedule(4, 16))
    assert all(torch.equal(other[name], expected[name]) for name in expected)


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    train_population(ARCHITECTURE, TASK, RUNS, Schedule(2, 8))
    assert torch.equal(torch.get_rng_state(), before)


def test_what_training_starts_from_is_not_changed():
    start = initial(ARCHITECTURE, [0, 1])
    kept = {name: tensor.clone() for name, tensor in start.items()}
    train_population(ARCHITECTURE, TASK, RUNS[:2], Schedule(2, 8), start=start)
    assert all(torch.equal(start[name], kept[name]) for name in kept)


def test_unstacking_is_the_inverse_of_stacking():
    states = unstack(initial(ARCHITECTURE, [0, 1]))
    again = unstack(stack(states))
    assert all(torch.equal(one[name], other[name]) for one, other in zip(states, again, strict=True) for name in one)
