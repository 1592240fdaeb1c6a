"""Alignment: hidden units put in the order, scale and sign of a reference network, the function unchanged.

Orders and signs are found by weight matching (`matching`), and the scale of a unit is balanced between what comes in
and what goes out (`balance`), wherever its group says that scale or sign are free. Everything is batched over networks
but the assignment itself, which is scipy's.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from weightgen.structure.axes import AxisGroup, with_activation
from weightgen.structure.balance import balanced
from weightgen.structure.matching import Matcher


class Aligner:
    """Brings networks of one architecture into the order of a reference.

    Args:
        groups: the architecture's axis groups.
        activation: the name of the activation if the groups are those of a plain stack; it decides what symmetries
            there are beside permutation. None if the groups say so themselves, as traced ones do.
        reference: name → tensor of the reference network; canonicalised here. None for scale alone.
    """

    def __init__(
        self,
        groups: Sequence[AxisGroup],
        activation: str | None = None,
        reference: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.activation = activation
        self.groups = [group if activation is None else with_activation(group, activation) for group in groups]
        self.matcher = Matcher(self.groups)
        self.reference = (
            None if reference is None else self.canonicalise({name: tensor[None] for name, tensor in reference.items()})
        )

    def canonicalise(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Balances the scale of each hidden unit between its incoming and outgoing weights; tensors `[networks, …]`."""
        return balanced(self.groups, tensors)

    def align(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Networks `[networks, …]` in canonical scale and in the order and sign of the reference."""
        return self.match(self.canonicalise(tensors))

    def match(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As `align`, for networks that are in canonical scale already; differentiable, the order taken as given.

        The reference may be one network, or as many as there are in `tensors`, each the reference of one.
        """
        if self.reference is None:
            raise ValueError("an Aligner without a reference cannot match")
        return self.matcher.match(tensors, self.reference)


def flat(tensors: Mapping[str, Tensor]) -> Tensor:
    """All values of each network in one row, counters left out: `[networks, values]`."""
    floating = [tensor for tensor in tensors.values() if tensor.is_floating_point()]
    return torch.cat([tensor.reshape(len(tensor), -1) for tensor in floating], dim=1)


def aligned_distances(
    first: Mapping[str, Tensor],
    second: Mapping[str, Tensor],
    groups: Sequence[AxisGroup],
    activation: str | None = None,
) -> Tensor:
    """L2 distance of every network of `first` to every one of `second`, with scale, permutation and sign removed.

    Each of `first` is aligned to each of `second`.

    Returns:
        float32 `[networks of first, networks of second]`.
    """
    aligner = Aligner(groups, activation)
    left, right = aligner.canonicalise(first), aligner.canonicalise(second)
    columns = []
    for index in range(len(next(iter(right.values())))):
        aligner.reference = {name: right[name][index : index + 1] for name in left}
        columns.append((flat(aligner.match(left)) - flat(aligner.reference)).norm(dim=1))
    return torch.stack(columns, dim=1)
