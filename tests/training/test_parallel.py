import functools
import os

import pytest
import torch

from weightgen.errors import WeightgenError
from weightgen.training.parallel import one_thread_each


def count(number: int, progress) -> tuple[int, int, int]:
    """Real work of a known result: the process it ran in, its threads, and a sum."""
    for step in range(3):
        progress(step + 1, 3, f"work {number}")
    return os.getpid(), torch.get_num_threads(), int(torch.arange(number).sum())


def fail(number: int, progress) -> None:
    raise WeightgenError("it diverged", where=f"work {number}")


def work(*functions):
    return [(functools.partial(function, number), number) for number, function in enumerate(functions)]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_results_come_in_order_from_one_thread_each(workers):
    threads, seen = torch.get_num_threads(), []
    found = one_thread_each(work(count, count, count), lambda *state: seen.append(state), workers)
    assert [total for _, _, total in found] == [0, 0, 1]
    assert {each for _, each, _ in found} == {1} and torch.get_num_threads() == threads
    assert (os.getpid() in {process for process, _, _ in found}) == (workers == 1)
    assert {number for number, *_ in seen} == {0, 1, 2} and seen[-1][2:] == (3, f"work {seen[-1][0]}")


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_error_of_one_ends_all(workers):
    with pytest.raises(WeightgenError, match="it diverged"):
        one_thread_each(work(count, fail, count, count), lambda *state: None, workers)
