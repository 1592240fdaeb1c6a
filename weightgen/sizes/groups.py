"""Sizes of axis groups in a recipe, and the recipe of a network that was resized.

`group_sizes` has one number for each axis group of the family's network, or for all groups of one kind, in their order.
"""

import contextlib
import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from weightgen.errors import ArchitectureError
from weightgen.sizes import options
from weightgen.structure.axes import AxisGraph
from weightgen.structure.rebuilding import counted, resize_module
from weightgen.structure.resizing import kin_of, resized_shapes

if TYPE_CHECKING:
    from torch import nn


def resize(module: "nn.Module", graph: AxisGraph, sizes: Sequence[int], where: str) -> None:
    """Gives a fresh module the sizes of its recipe.

    Args:
        graph: the axis groups of the module.
        sizes: for each of `kin_of(graph)`.
        where: the recipe, for errors.

    Raises:
        ArchitectureError: if there are not as many sizes as groups.
    """
    kinds = kin_of(graph)
    if len(kinds) != len(sizes):
        raise ArchitectureError(
            "one size is needed for each axis group, or for all of one kind", where=f"{where}, group_sizes",
            got=f"{len(sizes)} sizes", expected=len(kinds),
        )  # fmt: skip
    changed = {
        number: size
        for numbers, size in zip(kinds, sizes, strict=True)
        for number in numbers
        if graph.groups[number].size != size
    }
    resize_module(module, graph, changed)


def resized_recipe(architecture: Any, sizes: Mapping[int, int], graph: AxisGraph | None = None) -> Any:
    """The Architecture of the same network with other sizes; see `Architecture.resized`."""
    graph = architecture.axes() if graph is None else graph
    shapes = resized_shapes(graph, sizes)
    base, before = architecture.without_group_sizes()
    module = base.on_meta()
    own = options.sizes(module, base.family, shapes, functools.partial(counted, graph, sizes))
    if own and not before:
        with contextlib.suppress(ArchitectureError):
            candidate = base.replace(**own)
            if candidate.parameter_shapes() == shapes:
                return candidate
    resized = base.replace(group_sizes=_group_sizes(architecture, base.axes(), before, graph, sizes))
    if resized.parameter_shapes() != shapes:
        raise ArchitectureError("the network cannot be rebuilt in this size", where=f"'{architecture}'", got=resized)
    return resized


def _group_sizes(
    architecture: object, origin: AxisGraph, before: Sequence[int], graph: AxisGraph, sizes: Mapping[int, int]
) -> tuple[int, ...]:
    """One size for each kind of groups of the family's network.

    Args:
        origin: the axis groups of the family's network.
        before: their sizes so far, if they are not its own.
        graph: the groups of the network as it is, which `sizes` are of.
    """
    kinds = _kinds(origin)
    new = dict(zip(kinds, before or [origin.groups[numbers[0]].size for numbers in kinds.values()], strict=True))
    for key, numbers in _kinds(graph).items():
        if numbers[0] in sizes:
            if key not in new:
                raise ArchitectureError(
                    "a network that was resized before has groups that its family's has not",
                    where=f"'{architecture}'", remedy="resize the network it was made from",
                )  # fmt: skip
            new[key] = sizes[numbers[0]]
    return tuple(new.values())


def _kinds(graph: AxisGraph) -> dict[object, tuple[int, ...]]:
    """Groups of one kind by what tells them from others, whatever their sizes.

    That is the axes that they lie along, and how far inside: heads and the places within them lie along the same.
    """
    found: dict[object, tuple[int, ...]] = {}
    along: Counter[object] = Counter()
    kinds = [
        (numbers, [member for one in numbers for member in graph.groups[one].members]) for numbers in kin_of(graph)
    ]
    # Counted from inside, since the outer ones are no group when there is a single head.
    for numbers, members in sorted(kinds, key=lambda kind: max(member.block for member in kind[1])):
        axes = frozenset((member.tensor, member.axis) for member in members)
        found[axes, along[axes]] = numbers
        along[axes] += 1
    return dict(sorted(found.items(), key=lambda item: item[1]))
