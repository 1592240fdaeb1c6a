"""Repair: the layers that read pruned units make up for them from those that are left, by least squares.

x are the inputs of a layer, `K` those that are kept and `R` those that are removed. The removed are foretold from the
kept, x_R ≈ A x_K with A = C_RK (C_KK + λ)⁻¹ and C = E[x xᵀ], so that W_K + W_R A does on K what W did on all. For a
convolution A is the same at every place. C comes from training images, at the inputs of the network as it was; without
data from the weights that make the inputs, as if their own inputs were white: the arc-cosine kernel of the normed rows
(https://papers.nips.cc/paper/3628-kernel-methods-for-deep-learning) for what a ReLU lets through. As in the
reconstruction of https://arxiv.org/abs/1707.06168, but for all layers at once and without choosing channels by it.
"""

from collections.abc import Callable, Mapping

import numpy
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from weightgen.generators.resizing.method import Source
from weightgen.generators.resizing.values import unit_values
from weightgen.structure.axes import AxisGroup
from weightgen.structure.reading import reading_axis, writes
from weightgen.structure.resizing import Gather

RIDGE = 1e-3
"""λ as a share of the mean of C's diagonal."""
BATCH = 250
PLACES = 64
"""So many places of a feature map are looked at in each image."""


def repaired(source: Source, found: Mapping[str, Gather]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of the network as it is, those columns changed that `found` keeps; and notes.

    Args:
        found: the gathers of the new size, which only take away.
    """
    layers = _readers(source.module, found)
    moments = _from_images(source, layers) if source.task is not None else _from_weights(source, layers)
    tensors = dict(source.tensors)
    for name, moment in moments.items():
        axis = layers[name]
        weight = tensors[f"{name}.weight"]
        kept = numpy.unique(found[f"{name}.weight"].indices(axis))
        gone = numpy.setdiff1d(numpy.arange(weight.shape[axis]), kept)
        if not len(gone):
            continue
        inner = moment[kept][:, kept] + RIDGE * moment.diagonal().mean().clamp_min(1e-12) * torch.eye(len(kept))
        foretold = torch.linalg.solve(inner, moment[kept][:, gone])  # [kept, gone], A transposed
        columns = weight.float().movedim(axis, -1)
        change = columns[..., torch.from_numpy(gone)] @ foretold.mT
        columns = columns.index_add(-1, torch.from_numpy(kept), change)
        tensors[f"{name}.weight"] = columns.movedim(-1, axis).to(weight.dtype)
    left = len(layers) - len(moments)
    return tensors, (f"{left} layers could not be repaired without data",) if left else ()


def _readers(module: nn.Module, found: Mapping[str, Gather]) -> dict[str, int]:
    """The layers whose inputs become fewer, with the axis of their inputs."""
    layers = {}
    for name, layer in module.named_modules():
        axis = reading_axis(layer)
        if axis is not None and axis in found.get(f"{name}.weight", _NOTHING).axes and getattr(layer, "groups", 1) == 1:
            layers[name] = axis
    return layers


_NOTHING = Gather((), {}, {})


@torch.no_grad()
def _from_images(source: Source, layers: Mapping[str, int]) -> dict[str, Tensor]:
    """C of the inputs of each layer, `[inputs, inputs]`, measured on training images."""
    images, _ = source.batch
    moments: dict[str, Tensor] = {}

    def look(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
            # Convolutions have their channels on the second axis, linear layers on the last.
            values = given[0].flatten(2).mT if isinstance(layer, _ConvNd) else given[0]
            if values.dim() > 2:
                places = torch.linspace(0, values.shape[-2] - 1, min(PLACES, values.shape[-2])).long()
                values = values[..., places, :]
            values = values.flatten(0, -2)
            moments[name] = moments.get(name, torch.zeros(())) + values.mT @ values

        return add

    handles = [source.module.get_submodule(name).register_forward_pre_hook(look(name)) for name in layers]
    try:
        for batch in images.split(BATCH):
            source.module(batch)
    finally:
        for handle in handles:
            handle.remove()
    return moments


def _from_weights(source: Source, layers: Mapping[str, int]) -> dict[str, Tensor]:
    """C of the inputs of each layer as the weights that make them say; layers without such weights are left out."""
    moments: dict[str, Tensor] = {}
    for group in source.graph.groups:
        kernel = None
        for member in group.members:
            name, _, last = member.tensor.rpartition(".")
            if last != "weight" or layers.get(name) != member.axis or member.within is not None:
                continue
            kernel = _kernel(source, group) if kernel is None else kernel
            if kernel is None:
                break
            size = source.tensors[member.tensor].shape[member.axis]
            moment = moments.setdefault(name, torch.zeros(size, size))
            for places in torch.from_numpy(member.indices(group.size)).mT:
                moment[places[:, None], places] = kernel
    for moment in moments.values():
        # What belongs to no group stays, and is foretold by nothing else.
        empty = moment.diagonal() == 0
        moment.diagonal()[empty] = moment.diagonal()[~empty].mean()
    return moments


def _kernel(source: Source, group: AxisGroup) -> Tensor | None:
    """E[relu(a) relu(b)] of a group's units from the rows that make them, `[units, units]`; None without any."""
    rows = [
        unit_values(source.tensors[one.tensor].float(), one, group.size)
        for one in group.members
        if one.tensor.endswith("weight") and writes(source.module, one.tensor, one.axis)
    ]
    if not rows:
        return None
    joined = torch.cat(rows, 1)
    length = joined.norm(dim=1, keepdim=True).clamp_min(1e-12)
    angle = (joined / length @ (joined / length).mT).clamp(-1, 1).acos()
    return length @ length.mT * (angle.sin() + (torch.pi - angle) * angle.cos()) / torch.pi
