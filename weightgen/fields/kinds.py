"""The kinds of field: what a raw value means, how it is learned, and where the surface lies.

Losses of https://arxiv.org/abs/2310.01140: binary cross-entropy on distances mapped to [0, 1], focal loss on occupancy.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

TRUNCATION = 0.1
"""Distances beyond this are all one: a field tells what lies near its surface."""
SHELL = 0.5 * TRUNCATION
"""An unsigned field is nowhere 0: it is drawn as a shell of this distance, which closes gaps between sparse points."""
FOCUS = 3.0
"""γ of the focal loss, https://arxiv.org/abs/1708.02002."""
OUTSIDE_WEIGHT, INSIDE_WEIGHT = 0.1, 0.9


@dataclass(frozen=True)
class Kind:
    """One kind of field over points; radiance is learned from images instead, see `weightgen.fields.radiance`.

    Args:
        name: `udf`, `sdf` or `occupancy`.
        target: distances (signed for `sdf` and `occupancy`: negative within) → what the loss is held against.
        loss: raw values and targets, `[fields, n]` each → a loss for each, `[fields, n]`.
        distance: raw values → distance in units of space; for occupancy a value that is negative within.
        solid: whether it knows an inside.
    """

    name: str
    target: Callable[[Tensor], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    distance: Callable[[Tensor], Tensor]
    solid: bool


def _cross_entropy(raw: Tensor, targets: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(raw, targets, reduction="none")


def _focal(raw: Tensor, targets: Tensor) -> Tensor:
    wrong = torch.where(targets > 0.5, -raw, raw)
    weight = torch.where(targets > 0.5, INSIDE_WEIGHT, OUTSIDE_WEIGHT)
    return weight * wrong.sigmoid() ** FOCUS * functional.softplus(wrong)


KINDS = {
    "udf": Kind(
        "udf",
        target=lambda distance: 1 - distance.abs().clamp(max=TRUNCATION) / TRUNCATION,
        loss=_cross_entropy,
        distance=lambda raw: TRUNCATION * (1 - raw.sigmoid()),
        solid=False,
    ),
    "sdf": Kind(
        "sdf",
        target=lambda distance: (distance.clamp(-TRUNCATION, TRUNCATION) + TRUNCATION) / (2 * TRUNCATION),
        loss=_cross_entropy,
        distance=lambda raw: TRUNCATION * (2 * raw.sigmoid() - 1),
        solid=True,
    ),
    "occupancy": Kind(
        "occupancy",
        target=lambda distance: (distance < 0).float(),
        loss=_focal,
        # The threshold of the published fields: the focal loss leaves the inside underrated.
        distance=lambda raw: 0.3 - raw.sigmoid(),
        solid=True,
    ),
}
