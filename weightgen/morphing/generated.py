"""A morph by a NeuMeta generator: any size from one trained function, without data and without training."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import weightgen
from weightgen.architecture import Architecture
from weightgen.checkpoint import Checkpoint, Metric
from weightgen.errors import ArchitectureError
from weightgen.generators.neumeta import KIND, NeuMeta
from weightgen.morphing.widths import Sizing
from weightgen.tasks import Task, evaluate

Choose = Callable[[Architecture, Sizing], Mapping[int, int]]
"""Gives the sizes of the groups that change, for a network and what may be resized in it."""


def refuse(options: Mapping[str, Any]) -> None:
    """A trained function writes networks as they are: what else could be done with one is a second morph.

    Raises:
        ArchitectureError: for an option that is set.
    """
    for name, value in options.items():
        if value:
            raise ArchitectureError(
                "a generator writes its networks ready to use, in any width",
                where=f"--{name.replace('_', '-')}", got=value,
                remedy="leave it out, or morph the network that the generator writes",
            )  # fmt: skip


def generated(
    generator: NeuMeta,
    choose: Choose,
    target: Mapping[str, Any],
    ignore: Sequence[str],
    round_to: int,
    task: Task | None,
) -> tuple[Checkpoint, dict[str, float], dict[str, float], tuple[str, ...]]:
    """The network of a size, the figures of the full and of the new network on a task's test split, and notes."""
    sizing = Sizing(generator.architecture, ignore, round_to, generator.function.graph)
    changed = choose(generator.architecture, sizing)
    sizes = tuple(changed.get(number, size) for number, size in enumerate(generator.function.full))
    network = generator.network(sizes=sizes)
    before = {} if task is None else evaluate(generator.network().build(), task)["metrics"]
    after = {} if task is None else evaluate(network.build(), task)["metrics"]
    notes = _notes(generator, sizes)
    done = {
        **network.card.made_with, "command": "weightgen morph", "method": KIND, "target": dict(target),
        "notes": list(notes), "version": weightgen.__version__,
    }  # fmt: skip
    metrics = tuple(Metric(name, value, "test", task.digest) for name, value in after.items()) if task else ()
    card = dataclasses.replace(network.card, made_with=done, metrics=metrics)
    return Checkpoint(network.architecture, network.state_dict(), card), before, after, notes


def _notes(generator: NeuMeta, sizes: Sequence[int]) -> tuple[str, ...]:
    low, high = generator.widths
    full = generator.function.full
    smallest, largest = generator.sizes(low), generator.sizes(high)
    notes = []
    if any(size < least for size, least in zip(sizes, smallest, strict=True)):
        notes.append(f"narrower than any network it was trained for, which is {low:g} of all widths")
    if any(size > most for size, most in zip(sizes, largest, strict=True)):
        notes.append(f"wider than any network it was trained for, which is {high:g} of all widths")
    if any(size > whole for size, whole in zip(sizes, full, strict=True)):
        notes.append("wider than the checkpoint: units are repeated, and the answers are those of the full width")
    return tuple(notes)
