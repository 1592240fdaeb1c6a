"""Balance: the scale of every unit made canonical, so that what goes in and what goes out are of one size.

A unit whose incoming values may be multiplied by s and whose outgoing ones are then divided by s has a free scale; here
it is the one with equal norms on both sides. The sum of all squares is a convex function of the logarithms of all
scales, and this is its minimum: it does not depend on the scale in which a network is given.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from weightgen.structure.along import Along, along
from weightgen.structure.axes import AxisGroup

BALANCING_SWEEPS = 200
"""Most sweeps over all groups in search of the scale; deep stacks need more than ten."""
CONVERGED = 1e-8
"""A sweep that changes no scale by more than this share is the last."""


def balanced(groups: Sequence[AxisGroup], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same functions with each unit's scale balanced; tensors `[networks, …]`. Differentiable."""
    factors = balancing(groups, tensors)
    return {
        name: (tensor * factors[name]).to(tensor.dtype) if name in factors else tensor
        for name, tensor in tensors.items()
    }


def balancing(groups: Sequence[AxisGroup], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By what each tensor is to be multiplied to be balanced, float64 of shapes that broadcast to the tensors'."""
    steps = [_Step(group, scale) for group in groups for scale in group.scales]
    touched = {place.tensor: set() for step in steps for place in (*step.incoming, *step.outgoing)}
    if not touched:
        return {}
    for step in steps:
        for place in (*step.incoming, *step.outgoing):
            touched[place.tensor] |= {place.axis, *([place.within[0] + 1] if place.within else [])}
    squares = {}
    for name, axes in touched.items():
        # Sums of squares over what no scale tells apart are all that balancing needs: they are far fewer.
        rest = [axis for axis in range(1, tensors[name].dim()) if axis not in axes]
        square = tensors[name].double().square()
        squares[name] = square.sum(rest, keepdim=True) if rest else square
    applied: dict[str, Tensor] = {}
    for _ in range(BALANCING_SWEEPS):
        change = max([step.balance(squares, applied) for step in steps])
        if change < CONVERGED:
            break
    return applied


class _Step:
    """One group of units and the members that their scale multiplies and divides."""

    def __init__(self, group: AxisGroup, powers: Sequence[int]) -> None:
        places = list(zip(along(group), powers, strict=True))
        self.incoming = [place for place, power in places if power == 1]
        self.outgoing = [place for place, power in places if power == -1]

    def balance(self, squares: dict[str, Tensor], applied: dict[str, Tensor]) -> float:
        """One step of coordinate descent; gives the largest relative change of a scale."""
        inward = sum(place.units(squares[place.tensor]).sum(2) for place in self.incoming)
        outward = sum(place.units(squares[place.tensor]).sum(2) for place in self.outgoing)
        assert isinstance(inward, Tensor) and isinstance(outward, Tensor)
        # A unit that is dead on either side keeps its scale.
        alive = (inward > 0) & (outward > 0)
        safe = torch.where(alive, inward, 1.0)
        scale = torch.where(alive, (torch.where(alive, outward, 1.0) / safe) ** 0.25, 1.0)
        for places, factor in ((self.incoming, scale), (self.outgoing, 1 / scale)):
            for place in places:
                self._apply(place, factor, squares, applied)
        return (scale.detach() - 1).abs().max().item()

    @staticmethod
    def _apply(place: Along, factor: Tensor, squares: dict[str, Tensor], applied: dict[str, Tensor]) -> None:
        spread = place.factors(squares[place.tensor], factor)
        squares[place.tensor] = squares[place.tensor] * spread.square()
        known = applied.get(place.tensor)
        applied[place.tensor] = spread if known is None else known * spread
