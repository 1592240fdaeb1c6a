"""Plain stacks are aligned as when the shipped tokenizers were trained: held against the first algorithm."""

from pathlib import Path

import numpy
import pytest
from scipy.optimize import linear_sum_assignment

from weightgen import Zoo
from weightgen.structure import Aligner
from weightgen.training.population import stack

STARTER = Path(__file__).resolve().parents[2] / "zoo/starter"
CELLS = sorted({(row.architecture, str(row.task)) for row in Zoo.open(STARTER)})
COUNT = 4


def units(values: numpy.ndarray, axis: int, size: int) -> numpy.ndarray:
    return numpy.moveaxis(values, axis, 0).reshape(size, -1)


def multiplied(values: numpy.ndarray, axis: int, factors: numpy.ndarray) -> numpy.ndarray:
    spread = factors.repeat(values.shape[axis] // len(factors))
    return values * spread.reshape([-1 if place == axis else 1 for place in range(values.ndim)])


def balanced(state: dict, groups: tuple) -> dict:
    """For 200 sweeps, or until nothing changes: incoming and outgoing norms made equal."""
    state = {name: values.astype(numpy.float64) for name, values in state.items()}
    for _ in range(200):
        change = 0.0
        for group in groups:
            *incoming, outgoing = group.members
            inward = sum(
                numpy.square(units(state[member.tensor], member.axis, group.size)).sum(1) for member in incoming
            )
            outward = numpy.square(units(state[outgoing.tensor], outgoing.axis, group.size)).sum(1)
            scale = numpy.where((inward > 0) & (outward > 0), (outward / numpy.maximum(inward, 1e-30)) ** 0.25, 1)
            for member in group.members:
                factors = 1 / scale if member is outgoing else scale
                state[member.tensor] = multiplied(state[member.tensor], member.axis, factors)
            change = max(change, numpy.abs(scale - 1).max())
        if change < 1e-8:
            break
    return {name: values.astype(numpy.float32) for name, values in state.items()}


def matched(state: dict, reference: dict, groups: tuple) -> dict:
    """Sweeps from the first group to the last; the first sweep looks only at what comes in."""
    state = dict(state)
    for sweep in range(12):
        before = state
        for place, group in enumerate(groups):
            members = group.members if sweep or place == len(groups) - 1 else group.members[:-1]
            similarity = sum(
                units(reference[member.tensor], member.axis, group.size)
                @ units(state[member.tensor], member.axis, group.size).T
                for member in members
            )
            order = linear_sum_assignment(similarity, maximize=True)[1]
            state = dict(state)
            for member in group.members:
                index = (order[:, None] * member.block + numpy.arange(member.block)).ravel()
                state[member.tensor] = state[member.tensor].take(index, axis=member.axis)
        if sweep and all(numpy.array_equal(before[name], state[name]) for name in state):
            break
    return state


@pytest.mark.parametrize(("recipe", "task"), CELLS)
def test_networks_of_the_starter_zoo_are_aligned_as_ever(recipe, task):
    rows = [row for row in Zoo.open(STARTER) if row.architecture == recipe and row.task == task]
    networks = [row.load() for row in rows[: COUNT + 1]]
    groups = networks[0].architecture.groups()
    states = [{name: tensor.float() for name, tensor in network.state_dict().items()} for network in networks]
    aligned = Aligner(groups, reference=states[0]).align(stack(states[1:]))
    first, *others = ({name: tensor.numpy() for name, tensor in state.items()} for state in states)
    goal = balanced(first, groups)
    for number, state in enumerate(others):
        expected = matched(balanced(state, groups), goal, groups)
        for name, values in expected.items():
            numpy.testing.assert_allclose(aligned[name][number].numpy(), values, rtol=1e-5, atol=1e-6)
