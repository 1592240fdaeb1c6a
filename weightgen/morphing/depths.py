"""Depth: layers of a repeated kind dropped, evenly, or added so that they begin as the identity."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from weightgen.architecture import Architecture
from weightgen.errors import ArchitectureError
from weightgen.sizes.options import depth_option
from weightgen.structure.reading import reading_axis

Shapes = Mapping[str, tuple[int, ...]]
TOLERANCE = 1e-4
"""Largest change of an output, of its size, with which added layers count as the identity."""


@dataclass(frozen=True)
class Stage:
    """Blocks that stand one behind the other under one name: `layer1.0`, `layer1.1`, ….

    Args:
        prefix: `layer1.`.
        blocks: how many.
    """

    prefix: str
    blocks: int


def stages(architecture: Architecture) -> list[Stage]:
    """The stages of a network whose family has an option for their blocks.

    Raises:
        ArchitectureError: for a family that has none.
    """
    base, _ = architecture.without_group_sizes()
    if base.family in _STACKS:
        prefix, option = _STACKS[base.family]
        return [Stage(prefix, len(base.option(option)))]  # type: ignore[arg-type]
    option = depth_option(base.on_meta(), base.family)
    counts: dict[str, set[int]] = {}
    for name in base.parameter_shapes():
        match = re.match(r"((?:.*\.)?(?:layer\d*|layers|blocks|h)\.)(\d+)\.", name)
        if match and "downsample" not in match[1]:
            counts.setdefault(match[1], set()).add(int(match[2]))
    if not option or not counts:
        raise ArchitectureError(
            "the depth of this family cannot be changed", where=f"'{architecture}'",
            expected="weightgen's own networks, residual networks and vision transformers of timm, Llama, BERT, GPT-2",
        )  # fmt: skip
    return [Stage(prefix, len(numbers)) for prefix, numbers in counts.items()]


_STACKS = {"weightgen/mlp": ("hidden", "hidden"), "weightgen/cnn": ("conv", "channels")}
"""Plain stacks: the names of their layers, which count from 1, and the option for their widths."""


def new_depths(found: Sequence[Stage], factor: float) -> list[int]:
    """The number of blocks of each stage for a factor; no stage is left empty.

    Raises:
        ArchitectureError: for a factor of 0 or below.
    """
    if not factor > 0:
        raise ArchitectureError("a depth must be above 0", where="--depth", got=factor)
    return [max(1, int(stage.blocks * factor + 0.5)) for stage in found]


def with_depth(architecture: Architecture, found: Sequence[Stage], depths: Sequence[int]) -> Architecture:
    """The Architecture with other numbers of blocks.

    Raises:
        ArchitectureError: for a network whose groups have sizes of their own.
    """
    base, sizes = architecture.without_group_sizes()
    if sizes:
        raise ArchitectureError(
            "the depth of a network that was resized cannot be changed", where=f"'{architecture}'",
            remedy="change the depth first and the width then",
        )  # fmt: skip
    if base.family in _STACKS:
        option = _STACKS[base.family][1]
        widths: tuple[int, ...] = base.option(option)  # type: ignore[assignment]
        places = _places(found[0].blocks, depths[0])
        changed: dict[str, tuple[int, ...]] = {option: tuple(widths[place] for place in _filled(places))}
        if base.family == "weightgen/cnn":
            stride: int = base.option("stride")  # type: ignore[assignment]
            before: tuple[int, ...] = base.option("strides") or (stride,) * len(widths)  # type: ignore[assignment]
            changed["strides"] = tuple(1 if place is None else before[place] for place in places)
        return base.replace(**changed)
    option = depth_option(base.on_meta(), base.family)
    if base.family == "weightgen/resnet":
        inner: tuple[int, ...] = base.option("inner")  # type: ignore[assignment]
        between = iter(inner)
        own = [[next(between) for _ in range(stage.blocks)] for stage in found] if inner else []
        kept = [
            [one[place] for place in _filled(_places(stage.blocks, depth))]
            for stage, depth, one in zip(found, depths, own, strict=False)
        ]
        return base.replace(blocks=tuple(depths), inner=tuple(wide for widths in kept for wide in widths))
    return base.replace(**{option: depths[0] if option in ("depth", "n_layer", "num_hidden_layers") else tuple(depths)})


def deepened(
    architecture: Architecture, tensors: Mapping[str, Tensor], depths: Sequence[int]
) -> tuple[Architecture, dict[str, Tensor], tuple[str, ...]]:
    """The network with other numbers of blocks; those dropped are evenly spaced, those added compute the identity.

    Returns:
        Its Architecture and tensors, and notes of what was done.

    Raises:
        ArchitectureError: if the family has no depth, or no identity can be added, as after a norm at a block's end.
    """
    found = stages(architecture)
    new = with_depth(architecture, found, depths)
    sources = _sources(found, depths, start=1 if architecture.family in _STACKS else 0)
    shapes = new.parameter_shapes()
    state, added = {}, []
    for name in shapes:
        old, fresh = sources(name)
        if fresh:
            added.append(name)
        if old not in tensors or (tuple(tensors[old].shape) != shapes[name] and not fresh):
            raise ArchitectureError("the blocks of this depth do not fit one another", where=f"'{new}'", got=name)
        state[name] = tensors[old]
    if added:
        state = _as_identity(architecture, tensors, new, state, added)
    dropped = sum(max(0, stage.blocks - depth) for stage, depth in zip(found, depths, strict=True))
    notes = (f"{dropped} blocks were dropped, evenly spaced",) if dropped else ()
    return new, state, notes


def _places(before: int, after: int) -> list[int | None]:
    """For each new block the old one that stands there, None for one that is added behind another."""
    if after <= before:
        # The first stays, since it may take in another width.
        return [round(place * (before - 1) / max(after - 1, 1)) for place in range(after)]
    places: list[int | None] = []
    for place in range(after):
        old = place * before // after
        places.append(None if old in places else old)
    return places


def _filled(places: Sequence[int | None]) -> Iterator[int]:
    last = 0
    for place in places:
        last = last if place is None else place
        yield last


def _sources(found: Sequence[Stage], depths: Sequence[int], start: int) -> Callable[[str], tuple[str, bool]]:
    """Name of a new tensor → the old one it comes from, and whether it lies in a block that was added."""
    table = {}
    for stage, depth in zip(found, depths, strict=True):
        places = _places(stage.blocks, depth)
        for number, (place, filled) in enumerate(zip(places, _filled(places), strict=True)):
            table[f"{stage.prefix}{number + start}"] = f"{stage.prefix}{filled + start}", place is None

    def source(name: str) -> tuple[str, bool]:
        for new, (old, fresh) in table.items():
            if name.startswith(f"{new}."):
                return old + name.removeprefix(new), fresh
        return name, False

    return source


def _as_identity(
    architecture: Architecture,
    tensors: Mapping[str, Tensor],
    new: Architecture,
    state: Mapping[str, Tensor],
    added: Sequence[str],
) -> dict[str, Tensor]:
    """The state of the deeper network with its added blocks made the identity, in the first way that is exact.

    Raises:
        ArchitectureError: if there is none.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        before, after = architecture.build().eval(), new.build().eval()
        examples = [
            torch.randn(example.shape) if example.is_floating_point() else torch.randint(0, 8, example.shape)
            for example in architecture.example_inputs()
        ]
    before.load_state_dict(dict(tensors))
    with torch.no_grad():
        expected = logits(before(*examples))
        for make in (_zeroed_norms, _zeroed_layers, _unit_layers):
            changed = {**state, **make(after, state, added)}
            try:
                after.load_state_dict(changed)
            except RuntimeError:
                continue
            difference = (logits(after(*examples)) - expected).abs().max()
            if difference <= TOLERANCE * expected.abs().max().clamp_min(1e-6):
                return changed
    raise ArchitectureError(
        "no block can be added that computes the identity", where=f"'{architecture}'",
        got="a norm or another function at the end of its blocks", remedy="grow its width instead",
    )  # fmt: skip


def logits(results: object) -> Tensor:
    """The first tensor that a network answers."""
    if isinstance(results, Tensor):
        return results
    return results[0]  # type: ignore[index]


def _zeroed_norms(module: nn.Module, state: Mapping[str, Tensor], added: Sequence[str]) -> dict[str, Tensor]:
    """Batch norms at the end of an added block give zero: the last of each block."""
    last: dict[str, str] = {}
    for name in added:
        path = name.rpartition(".")[0]
        if isinstance(module.get_submodule(path), nn.modules.batchnorm._BatchNorm):
            last[re.sub(r"(\.\d+)\..*", r"\1", path)] = path
    return {
        f"{path}.{part}": torch.zeros_like(state[f"{path}.{part}"])
        for path in last.values()
        for part in ("weight", "bias")
        if f"{path}.{part}" in state
    }


def _zeroed_layers(module: nn.Module, state: Mapping[str, Tensor], added: Sequence[str]) -> dict[str, Tensor]:
    """Layers that write to the residual stream of an added block write zero: the last of attention and of the MLP."""
    ends = ("proj", "o_proj", "out_proj", "c_proj", "down_proj", "fc2")
    return {name: torch.zeros_like(state[name]) for name in added if name.rpartition(".")[0].rpartition(".")[2] in ends}


def _unit_layers(module: nn.Module, state: Mapping[str, Tensor], added: Sequence[str]) -> dict[str, Tensor]:
    """Layers of a plain stack give what they get: weights of one on the diagonal, in the middle of a kernel."""
    changed = {}
    for name in added:
        layer = module.get_submodule(name.rpartition(".")[0])
        shape = module.state_dict()[name].shape
        changed[name] = torch.zeros(shape)
        if name.endswith("weight") and reading_axis(layer) == 1 and shape[0] == shape[1]:
            middle = tuple(size // 2 for size in shape[2:])
            changed[name][(slice(None), slice(None), *middle)] = torch.eye(shape[0])
    return changed
