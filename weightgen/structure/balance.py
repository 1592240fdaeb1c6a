"""Balance: the scale of every unit made canonical, so that what goes in and what goes out are of one size.

A unit whose incoming values may be multiplied by s and whose outgoing ones are then divided by s has a free scale; here
it is the one with equal norms on both sides. The sum of all squares is a convex function of the logarithms of all
scales, and this is its minimum: it does not depend on the scale in which a network is given.
"""

from collections.abc import Iterator, Mapping, Sequence

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
    for _ in range(BALANCING_SWEEPS):
        change = max([step.balance(squares) for step in steps])
        if change < CONVERGED:
            break
    factors: dict[str, Tensor] = {}
    for step in steps:
        for place, scale in step.applied():
            spread = place.factors(squares[place.tensor], scale)
            factors[place.tensor] = factors[place.tensor] * spread if place.tensor in factors else spread
    return factors


class _Step:
    """One group of units and the members that their scale multiplies and divides."""

    def __init__(self, group: AxisGroup, powers: Sequence[int]) -> None:
        places = list(zip(along(group), powers, strict=True))
        self.incoming = [place for place, power in places if power == 1]
        self.outgoing = [place for place, power in places if power == -1]
        self.scale: Tensor | None = None

    def balance(self, squares: dict[str, Tensor]) -> float:
        """One step of coordinate descent; gives the largest relative change of a scale."""
        inward = sum(place.units(squares[place.tensor]).sum(2) for place in self.incoming)
        outward = sum(place.units(squares[place.tensor]).sum(2) for place in self.outgoing)
        assert isinstance(inward, Tensor) and isinstance(outward, Tensor)
        # A unit that is dead on either side keeps its scale.
        alive = (inward > 0) & (outward > 0)
        safe = torch.where(alive, inward, 1.0)
        square = torch.where(alive, torch.where(alive, outward, 1.0) / safe, 1.0).sqrt()
        for places, factor in ((self.incoming, square), (self.outgoing, 1 / square)):
            for place in places:
                squares[place.tensor] = squares[place.tensor] * place.factors(squares[place.tensor], factor)
        scale = square.sqrt()
        self.scale = scale if self.scale is None else self.scale * scale
        return (scale.detach() - 1).abs().max().item()

    def applied(self) -> Iterator[tuple[Along, Tensor]]:
        """Every member with what its units are multiplied by."""
        assert self.scale is not None
        inverse = 1 / self.scale
        yield from ((place, self.scale) for place in self.incoming)
        yield from ((place, inverse) for place in self.outgoing)
