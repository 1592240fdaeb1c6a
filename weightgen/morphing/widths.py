"""New sizes of a network's axis groups from a factor, a factor for some, another architecture, or a budget."""

import fnmatch
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from weightgen.architecture import Architecture
from weightgen.errors import ArchitectureError
from weightgen.registry import unknown_name
from weightgen.sizes.options import heads
from weightgen.structure.axes import AxisGraph
from weightgen.structure.resizing import outermost, resized_shapes

Widths = float | Mapping[str, float]
"""One factor for all groups, or the name of a layer (or a pattern such as `layer3.*`) → the factor of its groups."""

STEPS = 30
"""Halvings of the interval in which a factor is sought."""


@dataclass(frozen=True)
class _Coupling:
    """A residual stream that heads must fit.

    Args:
        stream: the number of its group.
        heads: the numbers of the groups of heads, one for each layer.
        each: heads of a unit of those groups, several where they share keys.
        size: values of a head where all of them make up the stream, 0 where their number must divide it.
    """

    stream: int
    heads: tuple[int, ...]
    each: int
    size: int

    def fits(self, width: int, count: int) -> bool:
        """Whether a stream of some width goes with a number of units of heads."""
        return count * self.each * self.size == width if self.size else width % (count * self.each) == 0


@dataclass(frozen=True)
class Sizing:
    """What may be resized in a network, and in what steps.

    Args:
        architecture: of the network.
        ignore: layers whose groups stay as they are, names or patterns.
        round_to: sizes are multiples of this, where groups are that large.
        graph: the axis groups of the network; traced if they are not known yet.

    Raises:
        UnknownNameError: for a layer that there is not.
    """

    architecture: Architecture
    ignore: Sequence[str] = ()
    round_to: int = 1
    graph: AxisGraph = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.graph is None:
            object.__setattr__(self, "graph", self.architecture.axes())
        for pattern in self.ignore:
            self._groups_of(pattern, writes_only=False)

    def widths(self, widths: Widths) -> dict[int, int]:
        """The sizes of the groups that change for given factors.

        Raises:
            ArchitectureError: for a factor that leaves a group empty, or sizes that heads do not make up.
            UnknownNameError: for a layer that there is not.
        """
        if isinstance(widths, Mapping):
            factors = {}
            for pattern, factor in widths.items():
                _check_factor(factor)
                for number in self._groups_of(pattern, writes_only=True):
                    factors[number] = factor
        else:
            _check_factor(widths)
            factors = dict.fromkeys(self._outer, widths)
        ignored = {number for pattern in self.ignore for number in self._groups_of(pattern, writes_only=False)}
        sizes = {
            number: self._size(self.graph.groups[number].size, factor)
            for number, factor in factors.items()
            if number not in ignored
        }
        return self._changed(self._with_heads(sizes, whole=not isinstance(widths, Mapping), ignored=ignored))

    def like(self, other: Architecture) -> dict[int, int]:
        """The sizes with which the network has the shapes of another one of its kind.

        Raises:
            ArchitectureError: if it cannot have them.
        """
        target, shapes = other.parameter_shapes(), self.graph.shapes
        sizes: dict[int, int] = {}
        lying: dict[tuple[str, int], dict[int, int]] = {}
        for number in self._outer:
            for member in self.graph.groups[number].members:
                if member.within is None:
                    lying.setdefault((member.tensor, member.axis), {})[number] = member.block
        for _ in lying:
            for (tensor, axis), blocks in lying.items():
                unknown = [number for number in blocks if number not in sizes]
                if len(unknown) == 1 and tensor in target and axis < len(target[tensor]):
                    others = sum(blocks[one] * sizes[one] for one in blocks if one in sizes)
                    covered = sum(block * self.graph.groups[one].size for one, block in blocks.items())
                    left = target[tensor][axis] - others - (shapes[tensor][axis] - covered)
                    sizes[unknown[0]] = left // blocks[unknown[0]]
        found = self._changed(sizes)
        if any(size < 1 for size in sizes.values()) or resized_shapes(self.graph, found) != target:
            wrong = sorted(set(shapes) ^ set(target)) or ["a shape"]
            raise ArchitectureError(
                "the network cannot get the shapes of another one", where=f"--like {other}",
                got=f"it differs in {wrong[0]}", expected=f"a network of the same kind as {self.architecture}",
            )  # fmt: skip
        return found

    def budget(self, target: int, count: Callable[[Mapping[int, int]], int], what: str) -> tuple[float, dict[int, int]]:
        """The largest factor for all groups with which a count is within a budget, and its sizes.

        Args:
            target: the budget.
            count: parameters or multiplications of the network with some sizes; grows with them.
            what: the name of what is counted, for errors.

        Raises:
            ArchitectureError: if the smallest network is beyond it.
        """
        low, high = 0.0, 1.0
        largest = max((self.graph.groups[number].size for number in self._outer), default=1)
        least = count(self.widths(0.5 / largest))
        if target < least:
            raise ArchitectureError(f"no size has so few {what}", got=f"{target:,}", expected=f"at least {least:,}")
        while count(self.widths(high)) <= target:
            low, high = high, 2 * high
            if high > 1024:
                break
        best = self.widths(low) if low else None
        for _ in range(STEPS):
            middle = (low + high) / 2
            sizes = self.widths(middle)
            if count(sizes) <= target:
                low, best = middle, sizes
            else:
                high = middle
        return low, self.widths(low) if best is None else best

    @property
    def coupled(self) -> tuple[tuple[int, ...], ...]:
        """Sets of groups that must be resized by one factor."""
        coupling = self._coupling
        return () if coupling is None or not coupling.size else ((coupling.stream, *coupling.heads),)

    @functools.cached_property
    def _outer(self) -> list[int]:
        return [number for numbers in outermost(self.graph) for number in numbers]

    def _size(self, size: int, factor: float) -> int:
        steps = self.round_to if size >= self.round_to else 1
        return max(1, math.floor(size * factor / steps + 0.5)) * steps

    def _changed(self, sizes: Mapping[int, int]) -> dict[int, int]:
        return {number: size for number, size in sizes.items() if size != self.graph.groups[number].size}

    def _groups_of(self, pattern: str, writes_only: bool) -> list[int]:
        """The outermost groups of the layers of a name or pattern; with `writes_only` those that the layers write."""
        found: list[int] = []
        names: set[str] = set()
        for number in self._outer:
            layers = {
                member.tensor.rpartition(".")[0] or member.tensor
                for member in self.graph.groups[number].members
                if not writes_only or _written(self.graph, member.tensor, member.axis)
            }
            names |= layers
            if any(fnmatch.fnmatchcase(name, pattern) or name.startswith(f"{pattern}.") for name in layers):
                found.append(number)
        if not found:
            raise unknown_name("layer with an axis group", pattern, names)
        return found

    @functools.cached_property
    def _coupling(self) -> _Coupling | None:
        found = heads(self.architecture.on_meta(), self.architecture.family)
        if found is None:
            return None

        def lying(end: str, axis: int) -> tuple[int, ...]:
            return tuple(
                number
                for number in self._outer
                if any(one.tensor.endswith(end) and one.axis == axis for one in self.graph.groups[number].members)
            )

        streams, layers = lying(*found.stream), lying(*found.tensors)
        if not streams or not layers:
            return None
        return _Coupling(streams[0], layers, max(1, found.count // self.graph.groups[layers[0]].size), found.size)

    def _with_heads(self, sizes: dict[int, int], whole: bool, ignored: set[int]) -> dict[int, int]:
        """Sizes in which heads and the residual stream fit one another, where a family wants that.

        Args:
            whole: whether all groups have one factor, so that the stream may be rounded.
        """
        coupling = self._coupling
        if coupling is None:
            return sizes
        now = {one: sizes.get(one, self.graph.groups[one].size) for one in (coupling.stream, *coupling.heads)}
        width, counts = now[coupling.stream], {now[one] for one in coupling.heads}
        if all(coupling.fits(width, count) for count in counts) or (not coupling.size and not whole):
            return sizes
        step = coupling.size * coupling.each or max(counts) * coupling.each
        nearest = max(1, math.floor(width / step + 0.5)) * step
        if not whole or ignored.intersection(now):
            raise ArchitectureError(
                f"heads of {coupling.size} values must make up the width of the network",
                got=f"{sorted(counts)} heads and a width of {width}",
                expected=f"a width of {nearest} with {nearest // coupling.size} heads, the nearest valid size",
                remedy="give the layers of both the same factor",
            )  # fmt: skip
        if coupling.size:
            sizes = {**sizes, **dict.fromkeys(coupling.heads, nearest // step)}
        return {**sizes, coupling.stream: nearest}


def _written(graph: AxisGraph, tensor: str, axis: int) -> bool:
    """Whether an axis is that of a layer's outputs: the first, or that of its bias."""
    return axis == 0 or len(graph.shapes[tensor]) == 1


def _check_factor(factor: float) -> None:
    if not 0 < factor < math.inf:
        raise ArchitectureError(
            "a width must be above 0", where="--width", got=factor, expected="a factor such as 0.5 or 2"
        )
