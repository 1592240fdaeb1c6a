"""Several trainings side by side, each in a process and thread of its own.

Networks as small as these leave the second thread of a training mostly waiting: two trainings of one thread each are
nearly twice as fast as one of two.
"""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from queue import Empty
from typing import Any, TypeVar

import torch

from weightgen.training.loop import Progress

Result = TypeVar("Result")
Work = tuple[Callable[[Progress], Result], int]
"""A function that takes a Progress, and the number by which its progress is told from that of others."""

POLL = 0.2
"""Seconds between two looks at what the workers tell."""

_told: Any = None


def one_thread_each(
    work: Sequence[Work], progress: Callable[[int, int, int, str], None], workers: int = 1
) -> list[Result]:
    """The results of all work, in its order; each runs on one thread, so that their number changes no result.

    Args:
        work: functions that can be pickled, if there is more than one worker.
        progress: called with the number of the work, steps done, steps in all, and a text.
        workers: processes; 1 works in this one.
    """
    if workers <= 1 or len(work) <= 1:
        with _one_thread():
            return [call(lambda *state, number=number: progress(number, *state)) for call, number in work]
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(told,)) as pool:
        futures: list[Future[Result]] = [pool.submit(_run, call, number) for call, number in work]
        try:
            waiting = set(futures)
            while waiting:
                done, waiting = wait(waiting, POLL, FIRST_COMPLETED)
                for state in _heard(told):
                    progress(*state)
                for future in done:
                    future.result()
        except BaseException:
            # What is at work would be waited for otherwise; its state is kept, and the next call goes on from it.
            for process in list((pool._processes or {}).values()):
                process.terminate()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [future.result() for future in futures]


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _begin(told: Any) -> None:
    global _told
    _told = told
    torch.set_num_threads(1)


def _run(call: Callable[[Progress], Result], number: int) -> Result:
    return call(lambda *state: _told.put((number, *state)))


def _heard(told: Any) -> Iterator[tuple[int, int, int, str]]:
    """What has been told so far, only the last of each work."""
    last = {}
    try:
        while True:
            state = told.get_nowait()
            last[state[0]] = state
    except Empty:
        yield from last.values()
