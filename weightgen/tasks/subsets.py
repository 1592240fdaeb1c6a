"""Class subsets of a task: `mnist/3v8` tells threes from eights, `digits/even-odd` even from odd."""

import dataclasses
import re

import numpy

from weightgen.errors import UnknownNameError
from weightgen.tasks.task import Arrays, Task


def subset(task: Task, part: str) -> Task:
    """The Task that keeps only the named classes of `task`, or groups them.

    Args:
        task: a task with ten digit classes or more.
        part: `AvB…` (keep classes A, B, … and number them from 0) or `even-odd` (all classes, by parity).

    Raises:
        UnknownNameError: if `part` is of neither form or names a class that is not there.
    """
    name = f"{task.name}/{part}"
    if part == "even-odd":
        groups = [range(0, len(task.classes), 2), range(1, len(task.classes), 2)]
        classes = ("even", "odd")
    elif re.fullmatch(r"\d+(v\d+)+", part):
        chosen = [int(text) for text in part.split("v")]
        if len(set(chosen)) < len(chosen) or max(chosen) >= len(task.classes):
            raise UnknownNameError(
                f"unknown task '{name}'", expected=f"different classes of 0 to {len(task.classes) - 1}"
            )
        groups = [[index] for index in chosen]
        classes = tuple(task.classes[index] for index in chosen)
    else:
        raise UnknownNameError(
            f"unknown task '{name}'", expected=f"'{task.name}/3v8' (classes to tell apart) or '{task.name}/even-odd'"
        )
    relabel = numpy.full(len(task.classes), -1, dtype=numpy.int64)
    for label, members in enumerate(groups):
        relabel[list(members)] = label

    def load() -> Arrays:
        kept: Arrays = {}
        for split, (images, labels) in task.arrays.items():
            mask = relabel[labels] >= 0
            kept[split] = images[mask], relabel[labels[mask]]
        return kept

    return dataclasses.replace(task, name=name, classes=classes, load=load)
