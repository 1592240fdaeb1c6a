"""Pictures of fields: a surface seen from a side, shaded, and many of them on one sheet."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from weightgen.errors import WeightgenError
from weightgen.fields.kinds import SHELL, Kind
from weightgen.fields.surfaces import distances
from weightgen.fields.triplane import TriPlaneConfig
from weightgen.storage import atomic

DEPTH = 1.5
"""Rays begin and end this far from 0."""
STEPS, REFINEMENTS = 64, 6
PAPER = 1.0
"""What lies behind: white."""
INK = (0.36, 0.52, 0.72)
LIGHT = (0.4, -0.3, 0.85)
Signed = Callable[[Tensor], Tensor]
"""Points `[fields, n, 3]` → a value that is negative behind the surface, `[fields, n]`."""


def view(azimuth: float, elevation: float) -> Tensor:
    """The frame of a camera that looks at 0 from a side: rows are right, up and towards the camera, `[3, 3]`.

    Args:
        azimuth: degrees around the vertical z.
        elevation: degrees above the horizon; not straight from above or below.
    """
    around, above = math.radians(azimuth), math.radians(elevation)
    towards = torch.tensor([math.cos(above) * math.cos(around), math.cos(above) * math.sin(around), math.sin(above)])
    right = torch.linalg.cross(torch.tensor([0.0, 0.0, 1.0]), towards)
    right = right / right.norm()
    return torch.stack([right, torch.linalg.cross(towards, right), towards])


def render_surface(
    config: TriPlaneConfig,
    kind: Kind,
    tensors: Mapping[str, Tensor],
    *,
    side: int = 128,
    azimuth: float = 35.0,
    elevation: float = 25.0,
) -> Tensor:
    """Fields seen along parallel rays: images `[fields, side, side, 3]` of values in [0, 1].

    Raises:
        WeightgenError: if the picture has no size.
    """
    if not 1 <= side <= 4096:
        raise WeightgenError("not a size of a picture", got=side, expected="1 to 4096")
    level = 0.0 if kind.solid else SHELL

    def signed(points: Tensor) -> Tensor:
        return distances(config, kind, tensors, points) - level

    return shade(signed, len(tensors["planes"]), side, view(azimuth, elevation))


def shade(signed: Signed, fields: int, side: int, frame: Tensor) -> Tensor:
    """The first surface along parallel rays, lit from above: `[fields, side, side, 3]`."""
    right, up, towards = frame
    line = torch.linspace(1 - 1 / side, -1 + 1 / side, side)
    begin = (line[:, None, None] * up - line[None, :, None] * right).view(-1, 3) + DEPTH * towards
    begin = begin.expand(fields, -1, 3)
    ahead = -2 * DEPTH / STEPS * towards
    near = torch.full(begin.shape[:2], math.inf)
    with torch.no_grad():
        for step in range(STEPS + 1):
            points = begin + step * ahead
            # Fields know nothing beyond the cube.
            within = points.abs().amax(-1) <= 1
            hit = within & near.isinf()
            if not hit.any():
                continue
            near = torch.where(hit & (signed(points) < 0), float(step), near)
        found = near.isfinite()
        low, high = torch.where(found, near - 1, 0.0), torch.where(found, near, 0.0)
        for _ in range(REFINEMENTS):
            middle = (low + high) / 2
            behind = signed(begin + middle[..., None] * ahead) < 0
            low, high = torch.where(behind, low, middle), torch.where(behind, middle, high)
    points = (begin + high[..., None] * ahead).requires_grad_()
    (gradient,) = torch.autograd.grad(signed(points).sum(), points)
    normal = gradient / gradient.norm(dim=-1, keepdim=True).clamp(min=1e-8)
    light = torch.tensor(LIGHT) / torch.tensor(LIGHT).norm()
    diffuse = (normal @ light).clamp(min=0)
    halfway = (light + towards) / (light + towards).norm()
    shine = (normal @ halfway).clamp(min=0) ** 30
    colour = (0.35 + 0.6 * diffuse)[..., None] * torch.tensor(INK) + 0.15 * shine[..., None]
    image = torch.where(found[..., None], colour, PAPER).clamp(0, 1)
    return image.detach().view(fields, side, side, 3)


def contact_sheet(images: Tensor, columns: int) -> Tensor:
    """Images `[n, height, width, 3]` in rows on one, `[rows · height, columns · width, 3]`."""
    count, height, width, _ = images.shape
    rows = -(-count // columns)
    sheet = torch.full((rows * columns, height, width, 3), PAPER)
    sheet[:count] = images
    return sheet.view(rows, columns, height, width, 3).transpose(1, 2).reshape(rows * height, columns * width, 3)


def write_png(path: Path | str, image: Tensor) -> None:
    """Writes an image `[height, width, 3]` of values in [0, 1], whole or not at all."""
    from PIL import Image

    picture = Image.fromarray((image.clamp(0, 1) * 255).round().to(torch.uint8).numpy())
    with atomic(path) as temporary:
        picture.save(temporary, format="PNG", optimize=True)
