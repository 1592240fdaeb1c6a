"""Radiance fields: density and colour in space, learned from posed images by rendering along their rays.

Volume rendering after NeRF, https://arxiv.org/abs/2003.08934: along a ray, densities σ and colours c at distances t
give the colour Σ T (1 − exp(−σ δ)) c over a white background, where T is the light that has come so far. Surfaces look
the same from all sides here, so that the decoder does not read the direction.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from weightgen.errors import WeightgenError
from weightgen.fields.fitting import Fields, Fitted, Fitting, Told, minimise
from weightgen.fields.rendering import view
from weightgen.fields.shapes import Shape
from weightgen.fields.triplane import TriPlaneConfig, evaluate, initial

DENSITY = 25.0
"""What raw densities are multiplied with: a wall of a tenth of the cube stops the light."""
EMPTY = 4.0
"""What is taken from raw densities."""
DISTANCE, OPENING = 2.6, 50.0
"""How far cameras stand from 0, and the angle, in degrees, that they see."""
AT_ONCE = 2**18
"""Points that are evaluated at once when a picture is made."""
COLOURS = ((0.85, 0.35, 0.25), (0.25, 0.55, 0.85), (0.95, 0.8, 0.3))
"""The colour of each part of a procedural scene."""


@dataclass(frozen=True)
class Views:
    """Posed images of scenes.

    Args:
        images: `[scenes, views, height, width, 3]`, values in [0, 1], over white.
        poses: `[scenes, views, 4, 4]` from camera to space; the camera looks along its own −z, its x is right, y is up.
        opening: the angle, in degrees, that the width of an image spans.

    Raises:
        WeightgenError: if the images have no poses, or there is something not finite.
    """

    images: Tensor
    poses: Tensor
    opening: float = OPENING

    def __post_init__(self) -> None:
        if self.images.dim() != 5 or self.images.shape[-1] != 3:
            raise WeightgenError(
                "not images of scenes", got=list(self.images.shape), expected="[scenes, views, height, width, 3]"
            )
        if self.poses is None or tuple(self.poses.shape) != (*self.images.shape[:2], 4, 4):
            raise WeightgenError(
                "a radiance field needs the pose of each image",
                got="no poses" if self.poses is None else f"poses {list(self.poses.shape)}",
                expected=[*self.images.shape[:2], 4, 4], remedy="give the camera's matrix, from camera to space",
            )  # fmt: skip
        if not self.images.isfinite().all() or not self.poses.isfinite().all():
            raise WeightgenError("images or poses are not finite", got="NaN or infinity")

    def rays(self) -> tuple[Tensor, Tensor]:
        """Origins and directions of unit length, `[scenes, views, height · width, 3]` each."""
        height, width = self.images.shape[2:4]
        return rays(self.poses, height, width, self.opening)


def rays(poses: Tensor, height: int, width: int, opening: float) -> tuple[Tensor, Tensor]:
    """Rays through the middle of each pixel: poses `[…, 4, 4]` → origins, directions `[…, height · width, 3]`."""
    reach = math.tan(math.radians(opening) / 2)
    columns = reach * (2 * (torch.arange(width) + 0.5) / width - 1)
    rows = reach * (1 - 2 * (torch.arange(height) + 0.5) / height) * height / width
    grid = torch.stack(
        [columns.expand(height, width), rows[:, None].expand(height, width), -torch.ones(height, width)], -1
    ).view(-1, 3)
    directions = grid @ poses[..., :3, :3].transpose(-1, -2)
    origins = poses[..., None, :3, 3].expand_as(directions)
    return origins, directions / directions.norm(dim=-1, keepdim=True)


def around(count: int, generator: torch.Generator, distance: float = DISTANCE) -> Tensor:
    """Poses `[count, 4, 4]` of cameras that look at 0 from all around, from a little below to well above."""
    poses = torch.eye(4).repeat(count, 1, 1)
    start = 360 * torch.rand((), generator=generator).item()
    for index in range(count):
        # Turned by the golden angle from one to the next, cameras spread evenly.
        elevation = -20 + 80 * torch.rand((), generator=generator).item()
        frame = view(start + 137.508 * index, elevation)
        poses[index, :3, :3] = frame.T
        poses[index, :3, 3] = distance * frame[2]
    return poses


def seen(shape: Shape, poses: Tensor, side: int, opening: float = OPENING) -> Tensor:
    """Exact images of a procedural shape, each part in its colour, lit from above: `[views, side, side, 3]`."""
    origins, directions = (part.reshape(-1, 3) for part in rays(poses, side, side, opening))
    reach = torch.full((len(origins),), DISTANCE - 1.2)
    for _ in range(64):
        # As far as the nearest surface is, a ray meets nothing.
        reach = reach + shape.distance(origins + reach[:, None] * directions).clamp(max=0.5)
    points = (origins + reach[:, None] * directions).requires_grad_()
    distance = shape.distance(points)
    (normal,) = torch.autograd.grad(distance.sum(), points)
    points = points.detach()
    light = functional.normalize(torch.tensor([0.4, -0.3, 0.85]), dim=0)
    colour = torch.tensor(COLOURS)[shape.labels(points)] * (0.45 + 0.55 * (normal @ light).clamp(min=0))[:, None]
    image = torch.where((distance.detach().abs() < 5e-3)[:, None], colour, 1.0)
    return image.view(len(poses), side, side, 3)


def look(shapes: Sequence[Shape], views: int, side: int, seed: int) -> Views:
    """Exact posed images of procedural shapes."""
    generator = torch.Generator().manual_seed(seed)
    poses = torch.stack([around(views, generator) for _ in shapes])
    # Twice as fine and averaged, so that edges are not jagged.
    fine = [seen(shape, one, 2 * side) for shape, one in zip(shapes, poses, strict=True)]
    images = torch.stack(fine).unflatten(2, (side, 2)).unflatten(4, (side, 2)).mean((3, 5))
    return Views(images, poses)


def march_rays(
    config: TriPlaneConfig,
    tensors: Mapping[str, Tensor],
    origins: Tensor,
    directions: Tensor,
    samples: int,
    jitter: bool,
) -> Tensor:
    """The colours of rays: origins and directions `[fields, n, 3]` → `[fields, n, 3]`."""
    low, high = _within(origins, directions)
    share = (torch.arange(samples) + (torch.rand(*low.shape, samples) if jitter else 0.5)) / samples
    step = ((high - low) / samples)[..., None]
    places = low[..., None] + (high - low)[..., None] * share
    points = origins[..., None, :] + places[..., None] * directions[..., None, :]
    raw = evaluate(config, tensors, points.flatten(1, 2)).unflatten(1, places.shape[1:])
    # Space is nearly empty at first: in a fog nothing behind the nearest cells would be learned.
    thickness = DENSITY * functional.softplus(raw[..., 0] - EMPTY) * step
    # Light that reaches a place: what all places before it let through.
    passed = torch.exp(-(thickness.cumsum(-1) - thickness))
    weight = passed * (1 - torch.exp(-thickness))
    return (weight[..., None] * raw[..., 1:].sigmoid()).sum(-2) + 1 - weight.sum(-1, keepdim=True)


def _within(origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave the cube; both the same if they miss it."""
    inverse = 1 / torch.where(directions.abs() < 1e-8, 1e-8, directions)
    one, other = (-1 - origins) * inverse, (1 - origins) * inverse
    low = torch.minimum(one, other).amax(-1).clamp(min=0)
    return low, torch.maximum(torch.maximum(one, other).amin(-1), low)


def fit_radiance(
    config: TriPlaneConfig,
    views: Views,
    held: Views,
    seeds: Sequence[int],
    fitting: Fitting,
    *,
    samples: int = 32,
    told: Told | None = None,
) -> Fitted:
    """Fits a radiance field to each scene's images; `points` of the fitting are rays a step.

    Args:
        config: with four outputs.
        held: images that are not learned from, to measure PSNR on.
        samples: points along a ray.

    Raises:
        WeightgenError: if the fields do not have four outputs.
    """
    if config.outputs != 4:
        raise WeightgenError("a radiance field has density and colour", where="outputs", got=config.outputs, expected=4)
    generator = torch.Generator().manual_seed(seeds[0])
    origins, directions = (part.flatten(1, 2) for part in views.rays())
    wanted = views.images.flatten(1, 3)

    def losses(tensors: Fields, alive: Tensor) -> Tensor:
        chosen = torch.randint(wanted.shape[1], (len(alive), fitting.points), generator=generator)
        rows = alive[:, None]
        colours = march_rays(config, tensors, origins[rows, chosen], directions[rows, chosen], samples, True)
        return (colours - wanted[rows, chosen]).square().mean((1, 2))

    def measured(tensors: Fields, alive: Tensor) -> Tensor:
        part = Views(held.images[alive], held.poses[alive], held.opening)
        return psnr(render_radiance(config, tensors, part.poses, held.images.shape[2], held.opening), part.images)

    # Jitter along the rays comes from torch's own generator, so that it is set here as well.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds[0] % 2**63)
        return minimise(initial(config, seeds), losses, fitting, "psnr", measured, told)


@torch.no_grad()
def render_radiance(
    config: TriPlaneConfig,
    tensors: Mapping[str, Tensor],
    poses: Tensor,
    side: int,
    opening: float = OPENING,
    samples: int = 64,
) -> Tensor:
    """Pictures of radiance fields: poses `[fields, views, 4, 4]` → `[fields, views, side, side, 3]`."""
    origins, directions = (part.flatten(1, 2) for part in rays(poses, side, side, opening))
    step = max(1, AT_ONCE // (samples * len(poses)))
    parts = zip(origins.split(step, 1), directions.split(step, 1), strict=True)
    colours = torch.cat([march_rays(config, tensors, *part, samples, False) for part in parts], 1)
    return colours.clamp(0, 1).view(*poses.shape[:2], side, side, 3)


def psnr(found: Tensor, wanted: Tensor) -> Tensor:
    """Peak signal to noise, in decibels, over all pixels of each scene: `[scenes, …]` → `[scenes]`."""
    return -10 * (found - wanted).square().flatten(1).mean(1).clamp(min=1e-10).log10()
