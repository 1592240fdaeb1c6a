"""morph(): a checkpoint in another size, by any method, with what was done and what it cost on its Card."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import weightgen
from weightgen.architecture import Architecture
from weightgen.checkpoint import Checkpoint, Metric
from weightgen.errors import ArchitectureError
from weightgen.generators.neumeta import NeuMeta
from weightgen.generators.resizing import Method, Source, methods
from weightgen.morphing.counting import count_macs
from weightgen.morphing.depths import deepened, logits, new_depths, stages
from weightgen.morphing.finishing import (
    Finishing,
    fine_tune,
    fixed_axes,
    noise_like,
    recalibrate_by_change,
    training_images,
)
from weightgen.morphing.generated import generated, refuse
from weightgen.morphing.widths import Sizing, Widths
from weightgen.structure.resizing import Gather, resized_shapes
from weightgen.tasks import Task, evaluate, get_task
from weightgen.tasks.evaluation import check_fits
from weightgen.training.loop import Progress
from weightgen.training.recalibration import has_statistics, recalibrate

EXACT = 1e-3
"""Largest change of an output, of its size, that a method may make which is said to be exact."""


@dataclass(frozen=True)
class Target:
    """The size that is wanted; one of these, or a depth beside one.

    Args:
        width: a factor, or layer → factor.
        depth: a factor for the number of blocks.
        params, macs: at most so many parameters or multiply-accumulates, by one factor for all widths.
        like: an Architecture of the same kind.
    """

    width: Widths | None = None
    depth: float | None = None
    params: int | None = None
    macs: int | None = None
    like: str | Architecture | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("width", "params", "macs", "like") if getattr(self, name) is not None]
        if len(given) > 1 or (not given and self.depth is None):
            raise ArchitectureError(
                "which size?", got=" and ".join(f"--{name}" for name in given) or "none",
                expected="one of --width, --params, --macs and --like, or --depth",
            )  # fmt: skip


@dataclass(frozen=True)
class Morph:
    """What a morph gave.

    Args:
        checkpoint: the network, its Card filled.
        method: the name of the method.
        macs: of the network; None where it is not known what it reads.
        before: `{"parameters", "macs", "metrics"}` of the network it was made from.
        metrics: of the network, on the test split.
        notes: what could not be done.
        fixed: reason → axes that could not be resized.
    """

    checkpoint: Checkpoint
    method: str
    macs: int | None
    before: Mapping[str, Any]
    metrics: Mapping[str, float]
    notes: tuple[str, ...]
    fixed: Mapping[str, Sequence[str]]

    def to_json(self, path: Path | str | None = None) -> dict[str, Any]:
        """What `weightgen morph --json` prints."""
        return {
            "path": None if path is None else str(path),
            "method": self.method,
            "architecture": str(self.checkpoint.architecture),
            "parameters": self.checkpoint.parameters,
            "macs": self.macs,
            "before": dict(self.before),
            "after": {"metrics": dict(self.metrics)},
            "notes": list(self.notes),
            "fixed": {reason: list(axes) for reason, axes in self.fixed.items()},
        }


def morph(
    checkpoint: Checkpoint | NeuMeta,
    *,
    width: Widths | None = None,
    depth: float | None = None,
    params: int | None = None,
    macs: int | None = None,
    like: str | Architecture | None = None,
    method: str | Method | None = None,
    task: str | Task | None = None,
    ignore: Sequence[str] = (),
    round_to: int = 1,
    repair: bool | None = None,
    recalibrate: str | None = "auto",
    finetune_steps: int = 0,
    distil: bool = False,
    learning_rate: float = 1e-3,
    measure: bool = True,
    before: Mapping[str, float] | None = None,
    seed: int = 0,
    state: Path | None = None,
    progress: Progress | None = None,
) -> Morph:
    """A network in another size.

    Args:
        checkpoint: the network; its architecture must be known. Or a generator, which writes the network of a size
            ready to use, so that nothing but the size and `task`, `ignore` and `round_to` may be given.
        width, depth, params, macs, like: the size, see `Target`.
        method: the name of a method, or a Method; `prune` or `net2net` if left out, as it shrinks or grows.
        task: what it is for; without one nothing looks at data.
        ignore: layers whose units stay as they are, names or patterns.
        round_to: sizes are multiples of this.
        repair: whether the next layers make up for pruned units; for `prune` with a task if left out.
        recalibrate: `data` sets norms by the change that training images show, `absolute` to what they are on these
            images, `synthetic` by the change that noise shows, None leaves them; `auto` is `data` with a task, else
            `synthetic`.
        finetune_steps: training steps that follow.
        distil: learn the answers of the old network in them.
        measure: whether the old and the new network are measured on the task's test split.
        before: the figures of the old one, if an earlier morph of it has measured them.
        seed: of everything that is drawn.
        state: a file for the state of the training steps.

    Raises:
        ArchitectureError: for a size that cannot be, a network without a recipe, or a task that does not fit.
        UnknownNameError: for a method, task or layer that there is not.
    """
    target = Target(width, depth, params, macs, like)
    found = get_task(task) if isinstance(task, str) else task
    if isinstance(checkpoint, NeuMeta):
        refuse({"method": method, "depth": depth, "finetune_steps": finetune_steps, "repair": repair})
        return _generated(checkpoint, target, ignore, round_to, found if measure else None)
    _check_known(checkpoint)
    before = _before(checkpoint, found, measure, before)
    work = _Work(checkpoint.architecture, checkpoint.state_dict(), checkpoint.build(), found, seed)
    work.change_depth(target)
    name, way, sizing, sizes = work.chosen(target, method, ignore, round_to)
    # The repair learns from data; from weights alone it does not help enough to be the default.
    mended = (name == "prune" and found is not None) if repair is None else repair
    work.change_width(way, sizing, sizes, mended)
    finishing = Finishing(
        _recalibration(recalibrate, found), steps=finetune_steps, distil=distil, learning_rate=learning_rate
    )
    work.finish(finishing, way.exact, checkpoint.build() if distil else None, state, progress)
    after = _measured(work.module, found) if measure else {}
    old = {"parameters": checkpoint.parameters, "macs": _macs(checkpoint.architecture), "metrics": before}
    done = {
        "command": "weightgen morph", "method": name, "target": _plain(target), "seed": seed, "repair": mended,
        "recalibrated": work.recalibrated, "finetune_steps": finetune_steps, "distil": distil,
        "examples_seen": finetune_steps * finishing.batch, "before": old, "notes": list(work.notes),
        "version": weightgen.__version__, "macs": _macs(work.architecture),
    }  # fmt: skip
    card = dataclasses.replace(
        checkpoint.card, parents=(checkpoint.id,), origin="morphed", made_with=done,
        task=checkpoint.card.task if found is None else found.name,
        metrics=tuple(Metric(key, value, "test", found.digest) for key, value in after.items()) if found else (),
    )  # fmt: skip
    made = Checkpoint(work.architecture, _like_kinds(work.module.state_dict(), checkpoint), card)
    return Morph(made, name, done["macs"], old, after, tuple(work.notes), fixed_axes(sizing.graph))


def _generated(generator: NeuMeta, target: Target, ignore: Sequence[str], round_to: int, task: Task | None) -> Morph:
    made, before, after, notes = generated(
        generator, lambda architecture, sizing: _sizes(architecture, sizing, target), _plain(target), ignore, round_to,
        task,
    )  # fmt: skip
    whole = generator.architecture
    old = {"parameters": whole.parameters, "macs": _macs(whole), "metrics": before}
    return Morph(made, "neumeta", _macs(made.architecture), old, after, notes, {})


class _Work:
    """A network on its way to another size.

    Args:
        module: the network with `tensors`, in evaluation mode.
    """

    def __init__(
        self, architecture: Architecture, tensors: Mapping[str, Tensor], module: nn.Module, task: Task | None, seed: int
    ) -> None:
        self.architecture, self.tensors, self.module = architecture, tensors, module
        self.task, self.seed = task, seed
        self.notes: list[str] = []
        self.recalibrated: str | None = None
        self.origin = self.wide = module
        self.moved: Mapping[str, Gather] | None = {}
        self.dropped = False

    def change_depth(self, target: Target) -> None:
        """Other numbers of blocks, if they are wanted."""
        depths = _depths(self.architecture, target)
        if depths is None:
            return
        new, tensors, notes = deepened(self.architecture, self.tensors, depths)
        self.notes.extend(notes)
        self._set(new, tensors)
        # Where blocks are gone, what the old norms have seen says nothing of the new.
        self.dropped = bool(notes)
        self.wide = self.module

    def chosen(
        self, target: Target, method: str | Method | None, ignore: Sequence[str], round_to: int
    ) -> tuple[str, Method, Sizing, dict[int, int]]:
        """The method and the sizes."""
        sizing = Sizing(self.architecture, ignore, round_to)
        sizes = _sizes(self.architecture, sizing, target)
        groups = sizing.graph.groups
        grows = any(size > groups[number].size for number, size in sizes.items())
        shrinks = any(size < groups[number].size for number, size in sizes.items())
        if method is None:
            method = "net2net" if grows or (not shrinks and target.depth is not None and target.depth > 1) else "prune"
        name, way = (method, methods()[method]) if isinstance(method, str) else (method.title, method)
        if (grows and not way.grows) or (shrinks and not way.shrinks):
            raise ArchitectureError(
                f"'{name}' cannot make a network {'larger' if grows else 'smaller'}", got=name,
                expected=", ".join(_able(grows, shrinks)) or "two steps, one to grow and one to shrink",
            )  # fmt: skip
        if way.needs_task and self.task is None:
            raise ArchitectureError(f"'{name}' looks at data", remedy="name the task with --task, or take prune")
        return name, way, sizing, sizes

    def change_width(self, way: Method, sizing: Sizing, sizes: Mapping[int, int], repair: bool) -> None:
        """Other sizes of axis groups."""
        if not sizes:
            return
        source = Source(
            self.tensors, self.module, sizing.graph, self.task, repair=repair, coupled=sizing.coupled, seed=self.seed
        )
        made = way.resize(source, sizes)
        self.notes.extend(made.notes)
        self.moved, self.wide = None if self.dropped else made.gathers, self.module
        self._set(self.architecture.resized(made.sizes), made.tensors)

    def finish(
        self,
        finishing: Finishing,
        exact: bool,
        teacher: nn.Module | None,
        state: Path | None,
        progress: Progress | None,
    ) -> None:
        """Checks that it runs, and does what follows."""
        examples = self.architecture.example_inputs()
        try:
            with torch.no_grad():
                self.module(*examples)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise ArchitectureError(
                "the network does not run in this size", where=f"'{self.architecture}'", got=str(error)[:200],
                remedy="leave the layer out with --ignore, or take a size of which more is a whole number",
            ) from error  # fmt: skip
        if exact:
            self._check_exact(examples)
        elif finishing.recalibrate and has_statistics(self.module):
            self._recalibrate(finishing, examples[0])
        if finishing.steps:
            if self.task is None:
                raise ArchitectureError("training steps need data", remedy="name the task with --task")
            fine_tune(
                self.module, self.task, finishing, teacher=teacher, seed=self.seed, state=state, progress=progress
            )

    def _recalibrate(self, finishing: Finishing, example: Tensor) -> None:
        data = finishing.recalibrate in ("data", "absolute") and self.task is not None
        if data:
            images = training_images(self.task, finishing.images, self.seed)  # type: ignore[arg-type]
        elif self.moved is not None and not self.dropped and example.is_floating_point():
            images = noise_like(example, max(16, min(256, finishing.images * 1024 // example.numel())), self.seed)
            self.notes.append("no task was named: norms were estimated on noise, not measured on data")
        else:
            self.notes.append("no task was named: norms could not be measured")
            return
        if self.moved is None or self.dropped or finishing.recalibrate == "absolute":
            recalibrate(self.module, images)
        else:
            recalibrate_by_change(self.module, self.wide, self.moved, images)
        self.recalibrated = finishing.recalibrate if data else "synthetic"

    def _check_exact(self, examples: Sequence[Tensor]) -> None:
        inputs = [
            torch.randn(one.shape, generator=torch.Generator().manual_seed(self.seed))
            if one.is_floating_point()
            else one
            for one in examples
        ]
        with torch.no_grad():
            old, new = logits(self.origin(*inputs)), logits(self.module(*inputs))
        difference = (old - new).abs().max().item() / max(old.abs().max().item(), 1e-12)
        if not difference <= EXACT:
            raise ArchitectureError(
                "the network does not answer as before", where=f"'{self.architecture}'",
                got=f"a change of {difference:.1g} of the output", remedy="leave layers out with --ignore",
            )  # fmt: skip

    def _set(self, architecture: Architecture, tensors: Mapping[str, Tensor]) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            module = architecture.build()
        module.load_state_dict(dict(tensors), strict=True)
        self.architecture, self.tensors, self.module = architecture, tensors, module.float().eval()


def _sizes(architecture: Architecture, sizing: Sizing, target: Target) -> dict[int, int]:
    """The sizes of the groups that change."""
    if target.width is not None:
        return sizing.widths(target.width)
    if target.like is not None:
        return sizing.like(_architecture(target.like))
    if target.params is not None:
        fixed = architecture.parameters - _elements(sizing, {}, architecture)
        return sizing.budget(target.params, lambda sizes: fixed + _elements(sizing, sizes, architecture), "parameters")[
            1
        ]
    if target.macs is not None:
        return sizing.budget(target.macs, lambda sizes: count_macs(architecture.resized(sizes)), "multiplications")[1]
    return {}


def _elements(sizing: Sizing, sizes: Mapping[int, int], architecture: Architecture) -> int:
    """How many parameters a network with some sizes has; a tied one counts once."""
    shapes = resized_shapes(sizing.graph, sizes)
    names = [name for name, _ in architecture.on_meta().named_parameters()]
    return sum(torch.Size(shapes[name]).numel() for name in names)


def _depths(architecture: Architecture, target: Target) -> list[int] | None:
    """The numbers of blocks that are wanted; None if they stay."""
    if target.depth is not None:
        found = stages(architecture)
        return new_depths(found, target.depth)
    if target.like is None:
        return None
    other = _architecture(target.like)
    if set(other.parameter_shapes()) == set(architecture.parameter_shapes()):
        return None
    here, there = stages(architecture), stages(other)
    if [stage.prefix for stage in here] != [stage.prefix for stage in there]:
        raise ArchitectureError("the network has other stages than the one it should be like", where=f"--like {other}")
    return [stage.blocks for stage in there]


def _architecture(recipe: str | Architecture) -> Architecture:
    return Architecture.parse(recipe) if isinstance(recipe, str) else recipe


def _able(grows: bool, shrinks: bool) -> list[str]:
    known = methods()
    return [name for name in known if (known[name].grows or not grows) and (known[name].shrinks or not shrinks)]


def _check_known(checkpoint: Checkpoint) -> None:
    if not checkpoint.architecture.known:
        raise ArchitectureError(
            "only names and shapes of the network are known, not what it computes",
            where=f"'{checkpoint.architecture}'",
            remedy="name its architecture, as in --architecture 'weightgen/resnet?blocks=5,5,5'",
        )  # fmt: skip


def _recalibration(wanted: str | None, task: Task | None) -> str | None:
    if wanted == "auto":
        return "data" if task is not None else "synthetic"
    if wanted not in (None, "none", "data", "absolute", "synthetic"):
        raise ArchitectureError("no such recalibration", got=wanted, expected="data, absolute, synthetic or none")
    if wanted in ("data", "absolute") and task is None:
        raise ArchitectureError("norms can be measured on data only with a task", remedy="name it with --task")
    return None if wanted == "none" else wanted


def _before(
    checkpoint: Checkpoint, task: Task | None, measure: bool, known: Mapping[str, float] | None
) -> dict[str, float]:
    """The figures of the network as it is; a task that it is not for is refused before the work."""
    if task is None:
        return {}
    module = checkpoint.build()
    check_fits(module, task, task.validation()[0])
    if known is not None or not measure:
        return dict(known or {})
    return _measured(module, task)


def _measured(module: nn.Module, task: Task | None) -> dict[str, float]:
    return {} if task is None else evaluate(module, task, "test")["metrics"]


def _macs(architecture: Architecture) -> int | None:
    try:
        return count_macs(architecture)
    except ArchitectureError:
        return None


def _plain(target: Target) -> dict[str, Any]:
    found = {name: value for name, value in vars(target).items() if value is not None}
    return {name: str(value) if isinstance(value, Architecture) else value for name, value in found.items()}


def _like_kinds(state: Mapping[str, Tensor], checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Tensors in the kinds in which those of the old network are stored."""
    return {
        name: tensor.to(getattr(torch, checkpoint.shapes[name][0])) if name in checkpoint.shapes else tensor
        for name, tensor in state.items()
    }
