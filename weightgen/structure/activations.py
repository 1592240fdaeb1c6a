"""Activation matching: units put in the order in which they answer most alike (https://arxiv.org/abs/1511.07543).

Units are compared by the correlation of their outputs on the same examples, over all places of a feature map. What
makes a unit's output is found by hooks: every linear, convolutional and normalising module whose `weight` has the
units along its first axis; a residual stream has many, whose correlations add up. Units that no such module makes
(those of recurrent layers, fused projections that are no module, transposed convolutions, tables) are matched by their
weights. Scales play no part in a correlation, signs do.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from weightgen.structure.axes import AxisGroup
from weightgen.structure.matching import Matcher

LAST_AXIS = (nn.Linear, nn.LayerNorm, nn.RMSNorm)
"""Modules whose units lie along the last axis of their output."""
FIRST_AXIS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.modules.batchnorm._BatchNorm, nn.GroupNorm)
"""Modules whose units lie along axis 1 of their output."""
STATISTICS = "running_mean"
BATCH = 250
"""Examples at once."""
PLACES = 4096
"""Of a batch's examples × places at most so many are looked at, evenly spread."""
SMALLEST_DEVIATION = 1e-12


def correlations(
    first: nn.Module, second: nn.Module, groups: Sequence[AxisGroup], examples: Tensor
) -> dict[str, Tensor]:
    """How much alike units of two networks of one architecture answer.

    Args:
        first, second: the networks, in evaluation mode.
        groups: the architecture's axis groups.
        examples: `[examples, …]`, inputs of both.

    Returns:
        name of a module → float32 `[its units in first, its units in second]` of −1…1; 0 for a unit that never changes.
    """
    names = _producers(first, groups)
    sums: dict[str, list[Tensor | float]] = {}
    for batch in examples.split(BATCH):
        left, right = _answers(first, names, batch), _answers(second, names, batch)
        for name in left:
            one, other = left[name].double(), right[name].double()
            new = (len(one), one.sum(0), other.sum(0), one.square().sum(0), other.square().sum(0), one.T @ other)
            sums[name] = [known + more for known, more in zip(sums.get(name, [0.0] * 6), new, strict=True)]
    return {name: _correlation(*parts) for name, parts in sums.items()}


def match_activations(
    groups: Sequence[AxisGroup],
    tensors: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    alike: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """One network's tensors in the order and signs in which its units answer most like the reference's.

    Args:
        tensors, reference: name → tensor.
        alike: of `correlations(network, reference, …)`.
    """
    # A module's correlations are one more tensor along which units lie, compared with that of perfect agreement.
    wide = [_observed_group(group, alike) for group in groups]
    network = {name: tensor[None] for name, tensor in tensors.items()}
    target = {name: tensor[None] for name, tensor in reference.items()}
    for name, correlation in alike.items():
        network[_key(name)] = correlation[None]
        target[_key(name)] = torch.eye(correlation.shape[1])[None]
    matched = Matcher(wide, {_key(name) for name in alike}).match(network, target)
    return {name: matched[name][0] for name in tensors}


def _key(module: str) -> str:
    return f"{module} answers"


def _producers(module: nn.Module, groups: Sequence[AxisGroup]) -> list[str]:
    """Names of the modules that make the units of groups."""
    found = {member.tensor for group in groups for member in group.members if member.axis == 0}
    return [
        name for name, part in module.named_modules()
        if isinstance(part, LAST_AXIS + FIRST_AXIS) and f"{name}.weight" in found
    ]  # fmt: skip


def _observed_group(group: AxisGroup, alike: Mapping[str, Tensor]) -> AxisGroup:
    """A group with the answers of its modules as further members."""
    positions = {(member.tensor, member.axis): position for position, member in enumerate(group.members)}
    members, scales, signs = list(group.members), list(map(list, group.scales)), list(map(list, group.signs))
    for member in group.members:
        module, _, kind = member.tensor.rpartition(".")
        if kind != "weight" or member.axis != 0 or member.within is not None or module not in alike:
            continue
        members.append(replace(member, tensor=_key(module)))
        for powers in scales:
            powers.append(0)
        for powers in signs:
            # A batch norm whose mean and weight change sign gives what it gave before.
            mean = positions.get((f"{module}.{STATISTICS}", 0))
            powers.append((powers[positions[member.tensor, 0]] + (0 if mean is None else powers[mean])) % 2)
    return replace(group, members=tuple(members), scales=tuple(map(tuple, scales)), signs=tuple(map(tuple, signs)))


def _answers(module: nn.Module, names: Sequence[str], examples: Tensor) -> dict[str, Tensor]:
    """The outputs `[examples · places, units]` of some modules within a module that is run."""
    seen: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(part: nn.Module, arguments: tuple, output: Tensor) -> None:
            axis = -1 if isinstance(part, LAST_AXIS) else 1
            rows = output.movedim(axis, -1).flatten(0, -2)
            chosen = rows[:: max(1, -(-len(rows) // PLACES))]
            seen[name] = torch.cat([seen[name], chosen]) if name in seen else chosen

        return hook

    handles = [module.get_submodule(name).register_forward_hook(watch(name)) for name in names]
    try:
        with torch.no_grad():
            module(examples)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _correlation(count: Tensor, one: Tensor, other: Tensor, one_square: Tensor, other_square: Tensor, both: Tensor):
    """Pearson's correlation from sums over `count` rows."""
    covariance = both / count - torch.outer(one / count, other / count)
    deviations = [
        (square / count - (total / count).square()).clamp_min(0).sqrt()
        for total, square in ((one, one_square), (other, other_square))
    ]
    product = torch.outer(*deviations)
    moves = product > SMALLEST_DEVIATION
    return torch.where(moves, covariance / torch.where(moves, product, 1.0), 0.0).float()
