"""Net2Net (https://arxiv.org/abs/1511.05641): a wider network that computes the same.

Each unit is repeated, as often as another as nearly as can be, and whoever reads it reads each of its c copies with 1/c
of the weight. That is exact for whatever acts on each unit by itself, batch norm included. A layer norm, an RMS norm or
one group of a group norm over the units looks at all of them together and stays the same only if every unit is repeated
equally often: groups under such a norm grow by whole multiples or not at all. Where one tensor is tied, written at one
place and read at another, its units cannot have both weights, and the group stays as it is too.
"""

import numpy
import torch
from torch import Tensor, nn

from weightgen.errors import ArchitectureError
from weightgen.generators.resizing.method import Method, Resized, Sizes, Source, register
from weightgen.structure.axes import AxisGroup, Member
from weightgen.structure.reading import reads
from weightgen.structure.resizing import even_selections, resized


def widened(source: Source, sizes: Sizes) -> Resized:
    """The tensors of a wider network that computes the same; groups that cannot grow exactly stay, and are noted."""
    kept, notes = _refused(source, sizes)
    for together in source.coupled:
        if kept.intersection(together):
            kept.update(together)
    chosen = {number: size for number, size in sizes.items() if number not in kept}
    selections = even_selections(source.graph, chosen)
    tensors = dict(source.tensors)
    for number, selection in selections.items():
        group = source.graph.groups[number]
        share = 1.0 / torch.from_numpy(numpy.bincount(selection, minlength=group.size)).double()
        for member in group.members:
            if reads(source.module, member.tensor, member.axis):
                tensors[member.tensor] = _scaled(tensors[member.tensor], member, share)
    return Resized(resized(tensors, source.graph, selections), chosen, tuple(notes))


def _refused(source: Source, sizes: Sizes) -> tuple[set[int], list[str]]:
    """The groups that would not be exact, and why."""
    kept, notes = set(), []
    tied = _tied(source.module)
    for number, size in sizes.items():
        group = source.graph.groups[number]
        where = f"{group.members[0].tensor}[{group.members[0].axis}]"
        if size < group.size:
            raise ArchitectureError(
                "net2net only grows", where=where, got=f"{size} of {group.size} units",
                remedy="shrink with select or prune",
            )  # fmt: skip
        roles = {reads(source.module, member.tensor, member.axis) for member in group.members if member.tensor in tied}
        if len(roles) > 1:
            notes.append(
                f"{where} stays {group.size} wide: its tensor is tied, written at one place and read at another"
            )
        elif size % group.size and _normed_together(source.module, group):
            nearest = max(1, round(size / group.size)) * group.size
            notes.append(
                f"{where} stays {group.size} wide: a norm looks at all its units, which is exact for whole multiples "
                f"only; nearest: {nearest if nearest > group.size else 2 * group.size}"
            )
        else:
            continue
        kept.add(number)
    return kept, notes


def _normed_together(module: nn.Module, group: AxisGroup) -> bool:
    """Whether a norm takes a mean or a variance over the units of a group."""
    for member in group.members:
        layer = module.get_submodule(member.tensor.rpartition(".")[0])
        if isinstance(layer, nn.GroupNorm):
            if layer.num_groups == 1:
                return True
        elif isinstance(layer, (nn.LayerNorm, nn.RMSNorm)) or type(layer).__name__.endswith(("LayerNorm", "RMSNorm")):
            return True
    return False


def _tied(module: nn.Module) -> set[str]:
    """The names of tensors that have several."""
    names: dict[int, list[str]] = {}
    for name, tensor in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(tensor), []).append(name)
    return {name for several in names.values() if len(several) > 1 for name in several}


def _scaled(tensor: Tensor, member: Member, share: Tensor) -> Tensor:
    """A tensor whose units are weighted in one member; share `[units]`."""
    factor = torch.ones(tensor.shape[member.axis], dtype=torch.float64)
    indices = torch.from_numpy(member.indices(len(share)))  # [units, indices]
    factor[indices] = share[:, None].expand(indices.shape)
    shape = [1] * tensor.dim()
    shape[member.axis] = -1
    weighted = tensor * factor.view(shape).to(tensor.dtype)
    if member.within is None:
        return weighted
    axis, start, stop = member.within
    out = tensor.clone()
    out.narrow(axis, start, stop - start).copy_(weighted.narrow(axis, start, stop - start))
    return out


register(
    "net2net",
    Method(
        "units repeated, the function kept",
        "https://arxiv.org/abs/1511.05641",
        widened,
        shrinks=False,
        grows=True,
        exact=True,
    ),
)
