"""Rebuilding: a module whose axis groups have other sizes, made of the module itself.

Every parameter and buffer is cut or extended as `resizing` says, and the numbers that modules keep beside them follow:
features and channels from the shapes, and counts (heads, groups of a convolution or a norm) from the groups whose units
they count. The code of the module is not touched.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from weightgen.structure.axes import AxisGraph
from weightgen.structure.resizing import even_selections, gathers

HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head")
HEAD_SIZES = ("head_dim", "attention_head_size", "head_size")
ALL_HEADS = ("attn_dim", "all_head_size")
SCALES = ("scale", "scaling")
OUTPUTS = ("proj", "out_proj", "o_proj", "to_out")
"""What modules of attention call the number of heads, the values of one, those of all, and the factor of scores,
and the layer that reads what all heads give."""


def resize_module(module: nn.Module, graph: AxisGraph, sizes: Mapping[int, int]) -> None:
    """Gives a module's groups other sizes, in place; new values are the old ones, cut or repeated evenly.

    Args:
        module: may stand on the meta device.
        graph: its axis groups.
        sizes: number of the group → new size, of the groups that change.

    Raises:
        ArchitectureError: as `resizing.gathers`.
    """
    found = gathers(graph, even_selections(graph, sizes))
    made: dict[int, Tensor] = {}
    with torch.no_grad():
        for name in found:
            path, _, last = name.rpartition(".")
            owner = module.get_submodule(path)
            old = getattr(owner, last)
            if id(old) not in made:
                new = found[name](old.detach())
                made[id(old)] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
            # Registered and not set, since a parametrisation has attributes of its own.
            owner._parameters[last] = made[id(old)] if isinstance(old, nn.Parameter) else None  # type: ignore[assignment]
            if not isinstance(old, nn.Parameter):
                del owner._parameters[last]
                owner._buffers[last] = made[id(old)]
    for path, part in module.named_modules():
        for kind, adapt in _ADAPTERS:
            if isinstance(part, kind):
                adapt(part, lambda count, axis=0, path=path: counted(graph, sizes, f"{path}.weight", axis, count))
                break
        else:
            _adapt_heads(part, path, graph, sizes)


def counted(graph: AxisGraph, sizes: Mapping[int, int], tensor: str, axis: int, count: int) -> int:
    """How many there are now of what there were `count` of along an axis, such as heads.

    That is the size of the group of so many units that the axis consists of, or what it was if there is no such group.
    """
    new = count
    for number, group in enumerate(graph.groups):
        for member in group.members:
            if (member.tensor, member.axis) != (tensor, axis):
                continue
            whole = member.within is None and member.block * group.size == graph.shapes[tensor][axis]
            if group.size == count and whole:
                new = sizes.get(number, count)
    return new


Counted = Callable[..., int]


def _adapt_linear(part: Any, counted: Counted) -> None:
    part.out_features, part.in_features = part.weight.shape


def _adapt_convolution(part: Any, counted: Counted) -> None:
    if isinstance(part, _ConvTransposeNd):
        part.groups = part.groups if part.groups == 1 else counted(part.groups, 0)
        part.in_channels, part.out_channels = part.weight.shape[0], part.weight.shape[1] * part.groups
        return
    part.groups = part.groups if part.groups == 1 else counted(part.groups)
    part.out_channels, part.in_channels = part.weight.shape[0], part.weight.shape[1] * part.groups


def _adapt_group_norm(part: Any, counted: Counted) -> None:
    if part.weight is not None:
        part.num_groups = part.num_groups if part.num_groups == 1 else counted(part.num_groups)
        part.num_channels = len(part.weight)


def _adapt_layer_norm(part: Any, counted: Counted) -> None:
    if part.weight is not None:
        part.normalized_shape = tuple(part.weight.shape)


def _adapt_norm(part: Any, counted: Counted) -> None:
    for tensor in (part.weight, part.running_mean):
        if tensor is not None:
            part.num_features = len(tensor)


def _adapt_embedding(part: Any, counted: Counted) -> None:
    part.num_embeddings, part.embedding_dim = part.weight.shape


_ADAPTERS: list[tuple[type, Callable[[Any, Counted], None]]] = [
    (nn.Linear, _adapt_linear),
    (_ConvNd, _adapt_convolution),
    (nn.GroupNorm, _adapt_group_norm),
    (nn.LayerNorm, _adapt_layer_norm),
    (nn.RMSNorm, _adapt_layer_norm),
    (_NormBase, _adapt_norm),
    (nn.Embedding, _adapt_embedding),
]


def _adapt_heads(part: nn.Module, path: str, graph: AxisGraph, sizes: Mapping[int, int]) -> None:
    """The numbers of a module that splits what its projections give into heads."""
    if isinstance(part, nn.MultiheadAttention):
        tensor, axis = f"{path}.out_proj.weight", 1
        part.num_heads = counted(graph, sizes, tensor, axis, part.num_heads)
        part.embed_dim = part.kdim = part.vdim = part.out_proj.weight.shape[0]
        part.head_dim = part.embed_dim // part.num_heads
        return
    heads = [name for name in HEADS if isinstance(getattr(part, name, None), int)]
    linear = {name: child for name, child in part.named_children() if isinstance(child, nn.Linear)}
    if not heads or not linear:
        return
    before = getattr(part, heads[0])
    numbers = {counted(graph, sizes, f"{path}.{name}.weight", axis, before) for name in linear for axis in (0, 1)}
    after = next(iter(numbers - {before}), before)
    # The output projection reads what all heads give.
    width = next(
        (linear[name].weight.shape[1] for name in ("proj", "out_proj", "o_proj", "to_out") if name in linear), 0
    )
    for name in heads:
        setattr(part, name, after)
    if not width or width % after:
        return
    for name in HEAD_SIZES:
        old = getattr(part, name, None)
        if isinstance(old, int):
            setattr(part, name, width // after)
            for scale in SCALES:
                if isinstance(getattr(part, scale, None), float) and abs(getattr(part, scale) - old**-0.5) < 1e-9:
                    setattr(part, scale, (width // after) ** -0.5)
    for name in ALL_HEADS:
        if isinstance(getattr(part, name, None), int):
            setattr(part, name, width)
