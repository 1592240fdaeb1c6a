"""What a way to another size is: it takes a network and the new sizes of its axis groups, and gives the tensors."""

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor, nn

from weightgen.errors import ArchitectureError
from weightgen.registry import Registry
from weightgen.structure.axes import AxisGraph
from weightgen.structure.resizing import Gather, Selections, gathers
from weightgen.tasks.task import Task

METHODS = ("selection", "pruning", "net2net")
"""The modules of this package that register methods."""

Sizes = Mapping[int, int]
"""Number of the group in `AxisGraph.groups` → new size, of the groups that change."""


@dataclass(frozen=True)
class Source:
    """A network that is to get another size, and what is known of it.

    Args:
        tensors: its state dict.
        module: the network itself, in evaluation mode; it must not be changed.
        graph: its axis groups.
        task: what it is for, with its data; None if there is none.
        examples: so many training images are looked at.
        repair: whether the next layers make up for what was taken away, where a method selects units.
        coupled: sets of groups that must grow by one factor, as a residual stream and the heads that make it up.
        seed: of everything that is drawn.
    """

    tensors: Mapping[str, Tensor]
    module: nn.Module
    graph: AxisGraph
    task: Task | None = None
    examples: int = 1000
    repair: bool = False
    coupled: tuple[tuple[int, ...], ...] = ()
    seed: int = 0

    @functools.cached_property
    def batch(self) -> tuple[Tensor, Tensor]:
        """Images `[examples, …]` and labels of the training split, drawn once.

        Raises:
            ArchitectureError: if there is no task.
        """
        if self.task is None:
            raise ArchitectureError(
                "this way to another size looks at data", remedy="name the task with --task, or take another method"
            )
        images, labels = self.task.train()
        chosen = numpy.random.RandomState(self.seed).permutation(len(labels))[: self.examples]
        return images[torch.from_numpy(chosen)], labels[torch.from_numpy(chosen)]


@dataclass(frozen=True)
class Resized:
    """Tensors of another size.

    Args:
        tensors: name → tensor, of the network with `sizes`.
        sizes: of the groups that did change; a method may leave one as it is and say so.
        notes: what could not be done, a sentence each.
        gathers: which old units the new ones are, by tensor; None for a method that makes new ones.
    """

    tensors: Mapping[str, Tensor]
    sizes: Sizes
    notes: tuple[str, ...] = ()
    gathers: Mapping[str, Gather] | None = None


@dataclass(frozen=True)
class Method:
    """One way to another size.

    Args:
        title: what it does, in a few words.
        address: of the paper.
        resize: gives the tensors of the new sizes.
        shrinks, grows: what it can do.
        needs_task: whether it looks at data.
        exact: whether the network it gives answers as the old one.
    """

    title: str
    address: str
    resize: Callable[[Source, Sizes], Resized]
    shrinks: bool = True
    grows: bool = False
    needs_task: bool = False
    exact: bool = False


_methods: Registry[Method] = Registry("method of resizing")


def methods() -> Registry[Method]:
    """All methods by name."""
    for module in METHODS:
        importlib.import_module(f"weightgen.generators.resizing.{module}")
    return _methods


def register(name: str, method: Method) -> Method:
    """Adds a method to those that `methods` gives."""
    return _methods.add(name, method)


def by_selection(choose: Callable[[Source, Sizes], Selections]) -> Callable[[Source, Sizes], Resized]:
    """A method that keeps some units of each group as they are, from the function that chooses them."""

    def resize(source: Source, sizes: Sizes) -> Resized:
        # The repair knows what a Source is, which is told here.
        from weightgen.generators.resizing.repair import repaired

        found = gathers(source.graph, choose(source, sizes))
        tensors, notes = repaired(source, found) if source.repair else (source.tensors, ())
        new = {name: found[name](tensor) if name in found else tensor for name, tensor in tensors.items()}
        return Resized(new, dict(sizes), notes, found)

    return resize
