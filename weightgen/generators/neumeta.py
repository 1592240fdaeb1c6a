"""NeuMeta: one trained function that writes a network at any size, without data and without training.

After Neural Metamorphosis, https://arxiv.org/abs/2410.11878. `implicit.py` is the function of the weights,
`neumeta_training.py` how it learns; here a checkpoint becomes such a function, and the function a Generator.
"""

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weightgen.architecture import Architecture
from weightgen.artefact import part, read_artefact, write_artefact
from weightgen.checkpoint import Card, Checkpoint
from weightgen.errors import ArchitectureError, CorruptFileError, WeightgenError
from weightgen.generators.generator import generators
from weightgen.generators.implicit import ImplicitConfig, ImplicitWeights, Sizes
from weightgen.generators.neumeta_training import STATISTICS, statistic_names
from weightgen.instructions import Request
from weightgen.structure.axes import AxisGraph
from weightgen.structure.ordering import smooth, unit_slices
from weightgen.structure.permutation import permuted
from weightgen.structure.reading import reads
from weightgen.structure.resizing import outermost
from weightgen.tasks import get_task

KIND = "neumeta"


@dataclass(frozen=True)
class Statistics:
    """What norms keep, for a row of sizes.

    Args:
        factors: `[sizes]`, rising: the mean over groups of size over full size.
        values: `[sizes, values]`, as `measure_statistics` gives them.
    """

    factors: Tensor
    values: Tensor

    def at(self, factor: float) -> Tensor:
        """`[values]` between those of the two nearest sizes; beyond the first and last those of the end."""
        right = int(torch.searchsorted(self.factors, factor).clamp(1, max(len(self.factors) - 1, 1)))
        if len(self.factors) == 1:
            return self.values[0]
        low, high = self.factors[right - 1], self.factors[right]
        share = ((factor - low) / (high - low)).clamp(0, 1)
        return torch.lerp(self.values[right - 1], self.values[right], share.float())


def function_of(architecture: Architecture, tensors: Mapping[str, Tensor], config: ImplicitConfig) -> ImplicitWeights:
    """The function that gives a network's own weights at its full size; groups are brought into order first.

    Raises:
        ArchitectureError: if the network cannot be traced, or has no group of units that could be resized.
    """
    graph = architecture.axes()
    if not graph.groups:
        raise ArchitectureError("no axis of the network can be resized", where=f"'{architecture}'")
    ordered = smooth(tensors, graph.groups, STATISTICS).tensors if config.positions == "spread" else by_importance(
        tensors, graph
    )  # fmt: skip
    return _function(architecture, ordered, graph, config)


def by_importance(tensors: Mapping[str, Tensor], graph: AxisGraph) -> dict[str, Tensor]:
    """Units in falling order of their size in all tensors, of each its share of the mean: what matters most first."""
    out = dict(tensors)
    for group in graph.groups:
        told = [member for member in group.members if not member.tensor.endswith((*STATISTICS, ".bias"))]
        sums = [unit_slices(out[member.tensor], member, group.size).double().abs().sum(1) for member in told]
        importance = functools.reduce(torch.add, [total / total.mean().clamp_min(1e-12) for total in sums])
        out = permuted(out, group, importance.argsort(descending=True, stable=True))
    return out


def _function(
    architecture: Architecture, tensors: Mapping[str, Tensor], graph: AxisGraph, config: ImplicitConfig
) -> ImplicitWeights:
    module = architecture.on_meta()
    learned = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    summed = [name for name in learned if len(graph.shapes[name]) > 1 and reads(module, name, 1)]
    return ImplicitWeights(tensors, graph, learned, summed, config)


def sizes_at(graph: AxisGraph, factor: float) -> Sizes:
    """Each group's size times a factor, rounded, at least 1; groups that lie within others keep theirs.

    Raises:
        WeightgenError: if the factor is not above 0.
    """
    if not factor > 0:
        raise WeightgenError("a width must be above 0", got=factor)
    outer = {number for numbers in outermost(graph) for number in numbers}
    return tuple(
        max(1, int(factor * group.size + 0.5)) if number in outer else group.size
        for number, group in enumerate(graph.groups)
    )


@generators.register(KIND)
class NeuMeta:
    """The function of a trained network's weights.

    Args:
        function: gives the tensors at any size.
        architecture: of the full network.
        task: the name of the task its networks are for.
        widths: the smallest and the largest factor that it was trained at.
        statistics: what its norms keep; None if it has none that keep any.
        provenance: how it was made.
    """

    def __init__(
        self,
        function: ImplicitWeights,
        architecture: Architecture,
        task: str,
        widths: tuple[float, float],
        statistics: Statistics | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.function, self.architecture, self.task = function.eval(), architecture, task
        self.widths, self.statistics = widths, statistics
        self.provenance = dict(provenance or {})

    @property
    def parameters(self) -> int:
        """How many values the generator itself has, statistics included."""
        kept = 0 if self.statistics is None else self.statistics.values.numel()
        return sum(parameter.numel() for parameter in self.function.parameters()) + kept

    def sizes(self, width: float) -> Sizes:
        """The sizes of all groups when every one is multiplied by `width`."""
        return sizes_at(self.function.graph, width)

    def mean_factor(self, sizes: Sizes) -> float:
        """The mean over groups of size over full size."""
        full = self.function.full
        return sum(size / whole for size, whole in zip(sizes, full, strict=True)) / len(full)

    @torch.no_grad()
    def tensors(self, sizes: Sizes, samples: int = 1, seed: int | None = None) -> dict[str, Tensor]:
        """The state dict of the network with these sizes.

        Args:
            samples: with a seed, the mean of so many draws.
            seed: of the noise on positions; without one there is none.
        """
        if seed is None:
            found = self.function(sizes)
        else:
            noise = torch.Generator().manual_seed(seed)
            draws = [self.function(sizes, noise) for _ in range(samples)]
            found = {
                name: torch.stack([draw[name] for draw in draws]).mean(0) if name in self.function.learned else tensor
                for name, tensor in draws[0].items()
            }
        return found | self._statistics(sizes)

    def network(
        self, width: float | None = None, *, sizes: Sizes | None = None, samples: int = 1, seed: int | None = None
    ) -> Checkpoint:
        """The network of a width, or with these sizes of its groups.

        Raises:
            WeightgenError: for a width that is not above 0.
            ArchitectureError: for sizes that make no network.
        """
        sizes = self.sizes(1.0 if width is None else width) if sizes is None else sizes
        made = {"generator": self.provenance.get("id", KIND), "sizes": list(sizes)}
        if seed is not None:
            made |= {"seed": seed, "samples": samples}
        tensors = self.tensors(sizes, samples, seed)
        card = Card(
            task=self.task,
            origin="generated",
            preprocessing=asdict(get_task(self.task).preprocessing),
            parents=tuple(filter(None, [self.provenance.get("checkpoint")])),
            made_with=made,
        )
        return Checkpoint(self.resized(sizes), tensors, card)

    def resized(self, sizes: Sizes) -> Architecture:
        """The architecture with these sizes."""
        changed = {number: size for number, size in enumerate(sizes) if size != self.function.full[number]}
        return self.architecture.resized(changed, self.function.graph) if changed else self.architecture

    def sample(self, request: Request, num: int = 1, seed: int = 0) -> list[Checkpoint]:
        """`num` draws, with noise on positions, of the network that the request names, the full one if it names none.

        Raises:
            WeightgenError: if the request is for another task.
            ArchitectureError: if the network asked for is no size of this one.
        """
        if request.task != self.task:
            raise WeightgenError("the generator is for another task", got=request.task, expected=self.task)
        sizes = self.function.full
        if request.architecture is not None:
            sizes = self.sizes_of(Architecture.parse(request.architecture))
        seeds = torch.randint(2**62, (num,), generator=torch.Generator().manual_seed(seed)).tolist()
        return [self.network(sizes=sizes, seed=one) for one in seeds]

    def sizes_of(self, architecture: Architecture) -> Sizes:
        """The sizes at which the generator writes an architecture.

        Raises:
            ArchitectureError: if it is no size of the generator's network.
        """
        shapes = architecture.parameter_shapes()
        sizes = self.function.full
        for _ in sizes:  # groups that share an axis with others are known once these are
            sizes = tuple(self._size_in(shapes, number, sizes) for number in range(len(sizes)))
        if min(sizes) < 1 or self.resized(sizes).parameter_shapes() != shapes:
            raise ArchitectureError(
                "the network is no size of the one that the generator writes", got=f"'{architecture}'",
                expected=f"'{self.architecture}' with other widths",
            )  # fmt: skip
        return sizes

    def save_pretrained(self, folder: Path | str, card: str = "") -> None:
        tensors = {f"function/{name}": tensor for name, tensor in self.function.state_dict().items()}
        if self.statistics is not None:
            tensors |= {f"statistics/{name}": getattr(self.statistics, name) for name in ("factors", "values")}
        config = {
            "architecture": str(self.architecture),
            "task": self.task,
            "widths": list(self.widths),
            "implicit": asdict(self.function.config),
            "axes": self.function.graph.to_json(),
            "provenance": self.provenance,
        }
        write_artefact(folder, KIND, config, tensors, card)

    @classmethod
    def from_pretrained(cls, name_or_folder: Path | str) -> "NeuMeta":
        """A saved generator, by folder or by its name on the shelf.

        Raises:
            UnknownNameError: if it is not there.
            CorruptFileError: if a file is damaged or of another kind.
        """
        from weightgen.shelf import shelf

        folder = shelf("checkpoints", name_or_folder)
        config, tensors = read_artefact(folder, KIND)
        try:
            architecture = Architecture.parse(config["architecture"])
            empty = {
                name: torch.zeros(shape, dtype=getattr(torch, kind))
                for name, (kind, shape) in architecture.tensors().items()
            }
            with torch.random.fork_rng(devices=[]):
                graph = AxisGraph.from_json(config["axes"])
                function = _function(architecture, empty, graph, ImplicitConfig(**config["implicit"]))
            function.load_state_dict(part(tensors, "function"))
            kept = part(tensors, "statistics")
            statistics = Statistics(kept["factors"], kept["values"]) if kept else None
            low, high = config["widths"]
            return cls(function, architecture, config["task"], (low, high), statistics, config["provenance"])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise CorruptFileError(
                "not a generator that this version can read", where=folder, got=str(error)
            ) from error

    def _statistics(self, sizes: Sizes) -> dict[str, Tensor]:
        if self.statistics is None:
            return {}
        names, shapes = statistic_names(self.function), self.function.graph.shapes
        parts = self.statistics.at(self.mean_factor(sizes)).split([shapes[name][0] for name in names])
        gathers = self.function.gathers(sizes)
        return {
            name: gathers[name](whole) if name in gathers else whole.clone()
            for name, whole in zip(names, parts, strict=True)
        }

    def _size_in(self, shapes: Mapping[str, tuple[int, ...]], number: int, sizes: Sizes) -> int:
        """A group's size in these shapes, if the groups beside it along its shortest axis have `sizes`; or 0."""
        graph, group = self.function.graph, self.function.graph.groups[number]
        beside: dict[tuple[str, int], int] = {}
        for other, one in enumerate(graph.groups):
            for member in one.members:
                if member.within is None and other != number:
                    key = member.tensor, member.axis
                    beside[key] = beside.get(key, 0) + member.block * (sizes[other] - one.size)
        lying = [member for member in group.members if member.within is None and member.tensor in shapes]
        if not lying:
            return group.size
        member = min(lying, key=lambda one: graph.shapes[one.tensor][one.axis] // one.block)
        if len(shapes[member.tensor]) <= member.axis:
            return 0
        change = shapes[member.tensor][member.axis] - graph.shapes[member.tensor][member.axis]
        return group.size + (change - beside.get((member.tensor, member.axis), 0)) // member.block
