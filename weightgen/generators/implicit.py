"""The weights of a network at any size, as one function of where they stand.

After Neural Metamorphosis, https://arxiv.org/abs/2410.11878, with a learned grid beneath the function.

Notation: of a network with sizes n (one for each axis group), the row w of tensor l that leads from input i to output o
(the values of a kernel, one value in a linear layer or a norm) is

    w(l, o, i; n) = (G[l, s(o), s(i)] + σ_l · f(l, p(o), p(i), c(n))) / k(i)

where s is the unit of the full network that a place stands for, G the grid of rows, begun as those of the checkpoint,
and f a multilayer perceptron begun at 0, which sees the tensor as a category, positions p = (s + ½) / N between 0 and 1
and c = log(n / N) for both axes, and is measured in the tensor's own deviation σ. If the network grows, a unit stands
at several places, and k(i) is at how many, so that the function is that of the full network.

Which unit a place stands for is a choice. `nested`: place i is unit i, so that a smaller network is the beginning of a
larger one and no unit changes its place with the size; groups must be in order of importance. `spread`: place i of n is
the unit at the same share of the whole, as in the paper; groups must be in smooth order.

All rows of all tensors with kernels of the same size are computed at once; their coordinates are kept for each size.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor, nn

from weightgen.registry import unknown_name
from weightgen.structure.axes import AxisGraph
from weightgen.structure.resizing import Gather, even_selections, gathers

KEPT = 64
"""Sizes whose coordinates are kept."""
POSITIONS = ("nested", "spread")

Sizes = tuple[int, ...]
"""One size for each group of `AxisGraph.groups`."""


@dataclass(frozen=True)
class ImplicitConfig:
    """The form of the function.

    Args:
        positions: `nested` or `spread`, see above.
        hidden: width of the perceptron f; 0 for the grid alone.
        grid: whether the grid is learned; if not, it stays the checkpoint's, and f has to learn all.
        frequencies: octaves of sine and cosine of positions that it sees.
    """

    positions: str = "nested"
    hidden: int = 64
    grid: bool = True
    frequencies: int = 4

    def __post_init__(self) -> None:
        if self.positions not in POSITIONS:
            raise unknown_name("choice of positions", self.positions, POSITIONS)


@dataclass(frozen=True)
class _Rows:
    """Coordinates of all rows of one length, of all tensors one after the other.

    Args:
        source: int64 `[rows]`, the row of the grid.
        layer: int64 `[rows]`, the tensor.
        position: `[rows, 2]`, of output and input, between 0 and 1.
        step: `[rows, 2]`, the distance of neighbouring units.
        ratio: `[rows, 2]`, the logarithm of the tensor's size over its full size.
        copies: `[rows, 1]`, at how many places the input's unit stands; None if all stand at one.
        pieces: (name, shape, rows) of the tensors.
    """

    source: Tensor
    layer: Tensor
    position: Tensor
    step: Tensor
    ratio: Tensor
    copies: Tensor | None
    pieces: tuple[tuple[str, tuple[int, ...], int], ...]


class ImplicitWeights(nn.Module):
    """Tensors of a network at any size.

    Args:
        tensors: name → tensor of the full network, groups in the order that `config.positions` asks for.
        graph: its axis groups.
        learned: the tensors that the function gives; all others are those of the checkpoint, cut or repeated.
        summed: the tensors along whose second axis inputs are summed up: weights of linear layers and convolutions.
        config: its form.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        graph: AxisGraph,
        learned: Collection[str],
        summed: Collection[str],
        config: ImplicitConfig,
    ) -> None:
        super().__init__()
        self.graph, self.config = graph, config
        self.learned = [name for name in graph.shapes if name in set(learned)]
        self.summed = frozenset(summed)
        self.full: Sizes = tuple(group.size for group in graph.groups)
        self._lead = {name: self._leading_axes(name) for name in self.learned}
        self._kept: dict[Sizes, tuple[dict[int, _Rows], dict[str, Gather]]] = {}
        stacks: dict[int, list[Tensor]] = {}
        for name in self.learned:
            values = self._values(name)
            stacks.setdefault(values, []).append(tensors[name].detach().float().reshape(-1, values))
        self.grid = nn.ParameterDict(
            {str(values): nn.Parameter(torch.cat(rows), config.grid) for values, rows in stacks.items()}
        )
        for index, name in enumerate(name for name in graph.shapes if name not in set(learned)):
            self.register_buffer(f"constant{index}", tensors[name].detach().clone())
        deviation = [tensors[name].detach().float().square().mean().sqrt() for name in self.learned]
        self.register_buffer("deviation", torch.stack(deviation).view(-1, 1))
        if config.hidden:
            features = 2 + 4 * config.frequencies + 2
            self.read = nn.Linear(features, config.hidden)
            self.middle = nn.Linear(config.hidden, config.hidden)
            # The tensor as a category: what it adds to the first layer, and how it scales and shifts the second.
            self.category = nn.Embedding(len(self.learned), 3 * config.hidden)
            nn.init.normal_(self.category.weight, std=0.1)
            self.write = nn.ModuleDict({str(values): nn.Linear(config.hidden, values) for values in stacks})
            for head in self.write.values():
                nn.init.zeros_(head.weight)  # type: ignore[arg-type]
                nn.init.zeros_(head.bias)  # type: ignore[arg-type]

    def forward(
        self,
        sizes: Sizes | None = None,
        noise: torch.Generator | None = None,
        selection: Mapping[int, numpy.ndarray] | None = None,
    ) -> dict[str, Tensor]:
        """Name → tensor of the network with these sizes, the full one if none are given.

        Args:
            noise: if given, positions are moved by up to half the distance to the next unit.
            selection: other units for the places than those of `selection(sizes)`.
        """
        sizes = self.full if sizes is None else sizes
        rows, moved = self._coordinates(sizes) if selection is None else self._locate(selection)
        found: dict[str, Tensor] = {}
        for values, part in rows.items():
            given = self.grid[str(values)].index_select(0, part.source)
            if self.config.hidden:
                given = given + self._residual(values, part, noise)
            if part.copies is not None:
                given = given / part.copies
            pieces = given.split([count for _, _, count in part.pieces])
            found |= {name: piece.view(shape) for (name, shape, _), piece in zip(part.pieces, pieces, strict=True)}
        constants = [name for name in self.graph.shapes if name not in self._lead]
        for index, name in enumerate(constants):
            tensor = self.get_buffer(f"constant{index}")
            found[name] = moved[name](tensor) if name in moved else tensor
        return {name: found[name] for name in self.graph.shapes}

    def selection(self, sizes: Sizes) -> dict[int, numpy.ndarray]:
        """Number of the group → int64 `[size]`, the unit of the full network that each place stands for."""
        if self.config.positions == "nested":
            return {
                number: numpy.arange(size) % self.full[number]
                for number, size in enumerate(sizes)
                if size != self.full[number]
            }
        changed = {number: size for number, size in enumerate(sizes) if size != self.full[number]}
        # The middle of each place's share, so that both ends lose alike.
        return {
            number: ((2 * numpy.arange(size) + 1) * self.full[number]) // (2 * size) for number, size in changed.items()
        } or even_selections(self.graph, {})

    def scattered(self, sizes: Sizes, core: Sizes, random: numpy.random.RandomState) -> dict[int, numpy.ndarray]:
        """A selection in which only the first `core` places of each group stand for their own units.

        All others stand for any that are left. A function that is good at these too leans on its first units, and still
        holds where it is asked for fewer units than it ever had in training.
        """
        chosen = self.selection(sizes)
        for number, units in chosen.items():
            first, full = min(core[number], len(units)), self.full[number]
            if len(units) < full:
                drawn = first + random.permutation(full - first)[: len(units) - first]
                chosen[number] = numpy.concatenate([numpy.arange(first), numpy.sort(drawn)])
        return chosen

    def gathers(self, sizes: Sizes) -> dict[str, Gather]:
        """For every tensor that changes with the sizes, where in the full tensor its values come from."""
        return self._coordinates(sizes)[1]

    def _residual(self, values: int, part: _Rows, noise: torch.Generator | None) -> Tensor:
        """σ_l · f, `[rows, values]`."""
        position = part.position
        if noise is not None:
            position = position + (torch.rand(position.shape, generator=noise) - 0.5) * part.step
        octaves = 2.0 ** torch.arange(self.config.frequencies) * torch.pi
        angles = (position[:, :, None] * octaves).flatten(1)
        features = torch.cat([position, angles.sin(), angles.cos(), part.ratio], dim=1)
        added, scale, shift = self.category.weight.chunk(3, dim=1)
        hidden = nn.functional.silu(self.read(features) + added.index_select(0, part.layer))
        hidden = self.middle(hidden) * (1 + scale.index_select(0, part.layer)) + shift.index_select(0, part.layer)
        return self.write[str(values)](nn.functional.silu(hidden)) * self.deviation.index_select(0, part.layer)

    def _leading_axes(self, name: str) -> int:
        """How many axes tell the rows of a tensor apart: output, input, and whatever else a group lies along."""
        touched = [
            axis
            for group in self.graph.groups
            for member in group.members
            if member.tensor == name
            for axis in (member.axis, *(member.within[:1] if member.within else ()))
        ]
        return min(max([1, *touched]) + 1, len(self.graph.shapes[name]))

    def _values(self, name: str) -> int:
        return int(numpy.prod(self.graph.shapes[name][self._lead[name] :], dtype=numpy.int64))

    def _coordinates(self, sizes: Sizes) -> tuple[dict[int, _Rows], dict[str, Gather]]:
        if sizes not in self._kept:
            if len(self._kept) >= KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[sizes] = self._locate(self.selection(sizes))
        return self._kept[sizes]

    def _locate(self, selection: Mapping[int, numpy.ndarray]) -> tuple[dict[int, _Rows], dict[str, Gather]]:
        moved = gathers(self.graph, selection)
        parts: dict[int, list] = {}
        starts: dict[int, int] = {}
        for layer, name in enumerate(self.learned):
            shape, lead, values = self.graph.shapes[name], self._lead[name], self._values(name)
            count = int(numpy.prod(shape[:lead], dtype=numpy.int64))
            gather = moved.get(name, Gather(shape, {}, {}))
            own = torch.arange(count).view(*shape[:lead], *[1] * (len(shape) - lead))
            source = gather(own).flatten()
            rows = [*shape[:lead], 1][:2]
            place = torch.stack([source // (count // rows[0]) if lead else source, source % rows[1]], dim=1)
            step = 1 / torch.tensor(rows).expand(len(source), 2)
            new = [*gather.shape[:lead], 1][:2]
            ratio = (torch.tensor(new) / torch.tensor(rows)).log().expand(len(source), 2)
            copies = None
            if name in self.summed and 1 in gather.axes:
                often = torch.from_numpy(numpy.bincount(gather.axes[1], minlength=shape[1])[gather.axes[1]])
                trail = [1] * (lead - 2)
                copies = often.view(1, -1, *trail).expand(gather.shape[:lead]).reshape(-1)
            first = starts.setdefault(values, 0)
            starts[values] += count
            piece = name, tuple(gather.shape), len(source)
            parts.setdefault(values, []).append(
                (source + first, torch.full_like(source, layer), (place + 0.5) * step, step, ratio, copies, piece)
            )
        return {values: _joined(found) for values, found in parts.items()}, moved


def _joined(parts: list[tuple]) -> _Rows:
    source, layer, position, step, ratio, copies, pieces = zip(*parts, strict=True)
    often = [torch.ones(len(rows)) if one is None else one.float() for one, rows in zip(copies, source, strict=True)]
    together = torch.cat(often).view(-1, 1)
    return _Rows(
        torch.cat(source), torch.cat(layer), torch.cat(position), torch.cat(step), torch.cat(ratio),
        together if bool((together > 1).any()) else None, pieces,
    )  # fmt: skip
