"""Axis groups: the axes of several tensors that must be permuted or resized together."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from weightgen.errors import ArchitectureError


@dataclass(frozen=True)
class Member:
    """One axis of one tensor; a unit of the group owns `block` neighbouring indices of it (a flattened feature map)."""

    tensor: str
    axis: int
    block: int = 1


@dataclass(frozen=True)
class AxisGroup:
    """The hidden units between two layers: `size` of them, with every axis along which they lie."""

    size: int
    members: tuple[Member, ...]


def axis_groups(shapes: Mapping[str, tuple[int, ...]]) -> list[AxisGroup]:
    """The hidden groups of a plain stack of linear and convolutional layers, from first to last.

    The inputs of the first layer and the outputs of the last are fixed and belong to no group.

    Args:
        shapes: name → shape of every tensor, `LAYER.weight` and `LAYER.bias` in the order of the layers.

    Raises:
        ArchitectureError: if the tensors are not those of a plain stack; never a wrong group.
    """
    layers: list[tuple[str, tuple[int, ...]]] = []
    for name, shape in shapes.items():
        layer, _, kind = name.rpartition(".")
        if kind == "weight" and len(shape) >= 2:
            layers.append((layer, shape))
        elif kind != "bias" or not layers or layers[-1][0] != layer or shape != layers[-1][1][:1]:
            raise _not_a_stack(name, shape)
    groups = []
    for (layer, shape), (following, next_shape) in itertools.pairwise(layers):
        size, inputs = shape[0], next_shape[1]
        block = inputs // size
        # Only where a feature map is flattened may a unit own several inputs.
        if inputs % size or (block > 1 and not len(shape) > 2 == len(next_shape)):
            raise _not_a_stack(f"{following}.weight", next_shape)
        members = [Member(f"{layer}.weight", 0)]
        if f"{layer}.bias" in shapes:
            members.append(Member(f"{layer}.bias", 0))
        groups.append(AxisGroup(size, (*members, Member(f"{following}.weight", 1, block))))
    return groups


def _not_a_stack(name: str, shape: tuple[int, ...]) -> ArchitectureError:
    return ArchitectureError(
        "only plain stacks of linear and convolutional layers have known axis groups so far",
        where=f"tensor '{name}'",
        got=f"shape {tuple(shape)}",
        remedy="use a weightgen/mlp or weightgen/cnn architecture",
    )
