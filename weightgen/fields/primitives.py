"""Solids whose signed distance is known exactly, and where they stand.

Formulas of https://iquilezles.org/articles/distfunctions, for any number of points at once. A solid has its own frame:
centre at 0, its axis along z.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Primitive:
    """One solid of a shape.

    Args:
        distance: points of its own frame `[n, 3]` → signed distance `[n]`, negative within.
        half: half of its extent along each of its own axes.
        centre: where it stands.
        rotation: `[3, 3]`, from its own frame to that of the shape.
        part: the part of the shape it belongs to.
    """

    distance: Callable[[Tensor], Tensor]
    half: tuple[float, float, float]
    centre: tuple[float, float, float]
    rotation: Tensor
    part: int

    def at(self, points: Tensor) -> Tensor:
        """Signed distance at points `[n, 3]` of the shape's frame."""
        return self.distance((points - torch.tensor(self.centre)) @ self.rotation)

    def corners(self) -> Tensor:
        """The corners of the box around it, `[8, 3]`, in the shape's frame."""
        signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
        return signs * torch.tensor(self.half) @ self.rotation.T + torch.tensor(self.centre)


def turned(axis: str, degrees: float) -> Tensor:
    """The rotation by an angle around a coordinate axis, `[3, 3]`."""
    angle = torch.deg2rad(torch.tensor(float(degrees)))
    first, second = [index for index in range(3) if index != "xyz".index(axis)]
    found = torch.eye(3)
    found[first, first] = found[second, second] = angle.cos()
    found[first, second], found[second, first] = -angle.sin(), angle.sin()
    return found


def ball(radius: float, centre: tuple, part: int) -> Primitive:
    return Primitive(lambda points: points.norm(dim=-1) - radius, (radius,) * 3, centre, torch.eye(3), part)


def box(half: tuple, centre: tuple, part: int, rotation: Tensor | None = None) -> Primitive:
    def distance(points: Tensor) -> Tensor:
        beyond = points.abs() - torch.tensor(half)
        return beyond.clamp(min=0).norm(dim=-1) + beyond.amax(-1).clamp(max=0)

    return Primitive(distance, half, centre, torch.eye(3) if rotation is None else rotation, part)


def cylinder(radius: float, half: float, centre: tuple, part: int, rotation: Tensor | None = None) -> Primitive:
    def distance(points: Tensor) -> Tensor:
        beyond = torch.stack([points[..., :2].norm(dim=-1) - radius, points[..., 2].abs() - half], -1)
        return beyond.clamp(min=0).norm(dim=-1) + beyond.amax(-1).clamp(max=0)

    rotation = torch.eye(3) if rotation is None else rotation
    return Primitive(distance, (radius, radius, half), centre, rotation, part)


def cone(
    below: float, above: float, half: float, centre: tuple, part: int, rotation: Tensor | None = None
) -> Primitive:
    """A cut cone: its radius is `below` at -half and `above` at half."""

    def distance(points: Tensor) -> Tensor:
        around, height = points[..., :2].norm(dim=-1), points[..., 2]
        radius = torch.where(height < 0, below, above)
        to_cap = torch.stack([(around - radius).clamp(min=0), height.abs() - half], -1)
        slope = torch.tensor([above - below, 2 * half])
        from_top = torch.stack([above - around, half - height], -1)
        along = ((from_top * slope).sum(-1) / slope.square().sum()).clamp(0, 1)
        to_side = torch.stack([around - above, height - half], -1) + slope * along[..., None]
        inside = (to_side[..., 0] < 0) & (to_cap[..., 1] < 0)
        # The root of 0 has no gradient.
        nearest = torch.minimum(to_cap.square().sum(-1), to_side.square().sum(-1)).clamp(min=1e-14).sqrt()
        return torch.where(inside, -nearest, nearest)

    rotation = torch.eye(3) if rotation is None else rotation
    widest = max(below, above)
    return Primitive(distance, (widest, widest, half), centre, rotation, part)


def ring(radius: float, thickness: float, centre: tuple, part: int, rotation: Tensor | None = None) -> Primitive:
    def distance(points: Tensor) -> Tensor:
        around = points[..., :2].norm(dim=-1) - radius
        return torch.stack([around, points[..., 2]], -1).norm(dim=-1) - thickness

    rotation = torch.eye(3) if rotation is None else rotation
    wide = radius + thickness
    return Primitive(distance, (wide, wide, thickness), centre, rotation, part)
