"""Procedural shapes: twelve classes with random proportions and pose, exact signed distance and labelled parts.

A shape is a union of solids. The distance to a union is the least of theirs: exact without and on the surface, and
within where no two solids overlap; where they do, the surface is at least that far. The sign is always exact.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from weightgen.errors import WeightgenError
from weightgen.fields.primitives import Primitive, ball, box, cone, cylinder, ring, turned
from weightgen.registry import unknown_name

Span = Callable[[float, float], float]
"""A random number between two others."""

FITTED = 0.9
"""The radius of the sphere that a shape is brought into."""
TILT = 15.0
"""The greatest angle, in degrees, by which a shape leans; it turns around the vertical freely."""


def _legs(wide: float, deep: float, thick: float, half: float, part: int) -> list[Primitive]:
    return [box((thick, thick, half), (x * wide, y * deep, 0.0), part) for x in (-1, 1) for y in (-1, 1)]


def _table(span: Span) -> list[Primitive]:
    wide, deep, half, thick = span(0.5, 1), span(0.4, 0.7), span(0.3, 0.6), span(0.06, 0.1)
    top = box((wide, deep, span(0.05, 0.09)), (0, 0, half), 0)
    return [top, *_legs(wide - thick, deep - thick, thick, half, 1)]


def _chair(span: Span) -> list[Primitive]:
    wide, deep, half, thick = span(0.35, 0.5), span(0.35, 0.5), span(0.25, 0.4), span(0.06, 0.09)
    high = span(0.3, 0.5)
    seat = box((wide, deep, 0.07), (0, 0, half), 0)
    back = box((wide, span(0.05, 0.08), high), (0, deep - 0.06, half + high), 1)
    return [seat, back, *_legs(wide - thick, deep - thick, thick, half, 2)]


def _lamp(span: Span) -> list[Primitive]:
    half, shade = span(0.4, 0.7), span(0.15, 0.25)
    foot = cylinder(span(0.25, 0.4), 0.06, (0, 0, -half), 0)
    pole = cylinder(span(0.05, 0.08), half, (0, 0, 0), 1)
    return [foot, pole, cone(span(0.3, 0.45), span(0.1, 0.2), shade, (0, 0, half), 2)]


def _mug(span: Span) -> list[Primitive]:
    radius, half, thick = span(0.4, 0.6), span(0.45, 0.65), span(0.07, 0.1)
    handle = ring(half * span(0.5, 0.65), thick, (radius, 0, 0), 1, turned("x", 90))
    return [cylinder(radius, half, (0, 0, 0), 0), handle]


def _airplane(span: Span) -> list[Primitive]:
    long, radius, wide = span(0.7, 0.9), span(0.1, 0.16), span(0.5, 0.8)
    body = cylinder(radius, long, (0, 0, 0), 0, turned("y", 90))
    nose = cone(radius, 0.03, 0.12, (long + 0.1, 0, 0), 0, turned("y", -90) @ turned("x", 180))
    wings = box((span(0.13, 0.2), wide, 0.05), (span(-0.1, 0.2), 0, 0), 1)
    tail = box((0.1, 0.05, span(0.18, 0.28)), (-long + 0.1, 0, 0.2), 2)
    rudder = box((0.09, span(0.2, 0.3), 0.05), (-long + 0.1, 0, 0.05), 2)
    return [body, nose, wings, tail, rudder]


def _rocket(span: Span) -> list[Primitive]:
    radius, half, tip = span(0.16, 0.26), span(0.4, 0.6), span(0.15, 0.25)
    fins = span(0.2, 0.3)
    return [
        cylinder(radius, half, (0, 0, 0), 0),
        cone(radius, 0.02, tip, (0, 0, half + tip), 1),
        box((radius + fins, 0.05, span(0.1, 0.2)), (0, 0, -half), 2),
        box((0.05, radius + fins, span(0.1, 0.2)), (0, 0, -half), 2),
    ]


def _bottle(span: Span) -> list[Primitive]:
    radius, half, neck = span(0.25, 0.38), span(0.35, 0.5), span(0.08, 0.13)
    slope, high = span(0.08, 0.14), span(0.12, 0.22)
    return [
        cylinder(radius, half, (0, 0, 0), 0),
        cone(radius, neck, slope, (0, 0, half + slope), 0),
        cylinder(neck, high, (0, 0, half + 2 * slope + high), 1),
    ]


def _dumbbell(span: Span) -> list[Primitive]:
    half, radius = span(0.4, 0.7), span(0.2, 0.35)
    bar = cylinder(span(0.06, 0.1), half, (0, 0, 0), 0, turned("y", 90))
    return [bar, ball(radius, (half, 0, 0), 1), ball(radius, (-half, 0, 0), 1)]


def _hammer(span: Span) -> list[Primitive]:
    half = span(0.5, 0.8)
    head = box((span(0.25, 0.4), span(0.1, 0.15), span(0.1, 0.15)), (0, 0, half), 1)
    return [cylinder(span(0.06, 0.1), half, (0, 0, 0), 0), head]


def _mushroom(span: Span) -> list[Primitive]:
    half, radius = span(0.25, 0.45), span(0.4, 0.6)
    cap = cone(radius, radius * span(0.2, 0.5), span(0.15, 0.25), (0, 0, half), 1)
    return [cylinder(span(0.1, 0.18), half, (0, 0, 0), 0), cap]


def _ladder(span: Span) -> list[Primitive]:
    half, wide, thick = span(0.6, 0.9), span(0.2, 0.35), span(0.05, 0.07)
    rails = [box((thick, thick, half), (x * wide, 0, 0), 0) for x in (-1, 1)]
    rungs = [box((wide, thick, thick), (0, 0, height * half), 1) for height in (-0.7, -0.25, 0.25, 0.7)]
    return rails + rungs


def _car(span: Span) -> list[Primitive]:
    long, wide, high, radius = span(0.6, 0.9), span(0.25, 0.38), span(0.1, 0.17), span(0.12, 0.18)
    cabin = box((long * span(0.4, 0.6), wide * 0.9, 0.13), (span(-0.15, 0.05), 0, high + 0.1), 1)
    wheels = [
        cylinder(radius, 0.07, (x * long * 0.65, y * wide, -high), 2, turned("x", 90)) for x in (-1, 1) for y in (-1, 1)
    ]
    return [box((long, wide, high), (0, 0, 0), 0), cabin, *wheels]


CLASSES: dict[str, tuple[Callable[[Span], list[Primitive]], tuple[str, ...]]] = {
    "airplane": (_airplane, ("body", "wings", "tail")),
    "bottle": (_bottle, ("body", "neck")),
    "car": (_car, ("body", "cabin", "wheels")),
    "chair": (_chair, ("seat", "back", "legs")),
    "dumbbell": (_dumbbell, ("bar", "weights")),
    "hammer": (_hammer, ("handle", "head")),
    "ladder": (_ladder, ("rails", "rungs")),
    "lamp": (_lamp, ("foot", "pole", "shade")),
    "mug": (_mug, ("body", "handle")),
    "mushroom": (_mushroom, ("stem", "cap")),
    "rocket": (_rocket, ("body", "tip", "fins")),
    "table": (_table, ("top", "legs")),
}
"""Class → what makes its solids, and the names of its parts."""


@dataclass(frozen=True)
class Shape:
    """A shape within the unit sphere.

    Args:
        name: its class.
        seed: what made it.
        primitives: its solids, in a frame of their own.
        rotation: `[3, 3]`, from that frame to space.
        centre: the point of that frame that lies at 0.
        scale: what its lengths are multiplied with.
    """

    name: str
    seed: int
    primitives: tuple[Primitive, ...]
    rotation: Tensor
    centre: Tensor
    scale: float

    @property
    def solid(self) -> bool:
        return True

    @property
    def parts(self) -> tuple[str, ...]:
        return CLASSES[self.name][1]

    def solids(self, points: Tensor) -> Tensor:
        """The signed distance to every solid: points `[n, 3]` → `[solids, n]`."""
        own = points @ self.rotation / self.scale + self.centre
        return self.scale * torch.stack([one.at(own) for one in self.primitives])

    def distance(self, points: Tensor) -> Tensor:
        """The signed distance, negative within: points `[n, 3]` → `[n]`."""
        return self.solids(points).amin(0)

    def labels(self, points: Tensor) -> Tensor:
        """The part of the nearest solid, an index of `parts`: points `[n, 3]` → int64 `[n]`."""
        return torch.tensor([one.part for one in self.primitives])[self.solids(points).argmin(0)]

    def surface(self, count: int, generator: torch.Generator) -> Tensor:
        """Points spread evenly over its surface, `[count, 3]`."""
        found: list[Tensor] = []
        while sum(map(len, found)) < count:
            points = 2 * torch.rand(8 * count, 3, generator=generator) - 1
            # As many of a thin layer around the surface lie over each part of it as that is large.
            points = points[self.distance(points).abs() < 0.05]
            for _ in range(4):
                points = points - _away(self.distance, points)
            found.append(points[self.distance(points).abs() < 1e-3])
        return torch.cat(found)[:count]


def _away(distance: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """How far and in which direction points lie from a surface: distance × its gradient, `[n, 3]`."""
    points = points.detach().requires_grad_()
    with torch.enable_grad():
        values = distance(points)
        (gradient,) = torch.autograd.grad(values.sum(), points)
    return (values[:, None] * gradient / gradient.square().sum(-1, keepdim=True).clamp(min=1e-6)).detach()


def make_shape(name: str, seed: int) -> Shape:
    """A shape of a class; the seed decides proportions and pose.

    Raises:
        UnknownNameError: for a class that does not exist.
    """
    if name not in CLASSES:
        raise unknown_name("class of shapes", name, CLASSES)
    generator = torch.Generator().manual_seed(seed)

    def span(low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=generator).item()

    primitives = tuple(CLASSES[name][0](span))
    rotation = turned("x", span(-TILT, TILT)) @ turned("y", span(-TILT, TILT)) @ turned("z", span(-180, 180))
    corners = torch.cat([one.corners() for one in primitives])
    centre = (corners.amax(0) + corners.amin(0)) / 2
    scale = FITTED / (corners - centre).norm(dim=-1).amax().item()
    return Shape(name, seed, primitives, rotation, centre, scale)


def make_shapes(count: int, seed: int) -> list[Shape]:
    """As many shapes, the classes in turn.

    Raises:
        WeightgenError: if there are none to make.
    """
    if count < 1:
        raise WeightgenError("no shapes to make", got=count, expected="at least 1")
    names = sorted(CLASSES)
    # Seeds of two sets must not meet: those of one lie within a range of its own.
    return [make_shape(names[index % len(names)], 1_000_003 * seed + index) for index in range(count)]
