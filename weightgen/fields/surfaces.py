"""The surface that a field stores: as points, as a mesh, and how good it is."""

from collections.abc import Mapping
from pathlib import Path

import numpy
import torch
from torch import Tensor

from weightgen.errors import MissingDataError, WeightgenError
from weightgen.fields.kinds import SHELL, TRUNCATION, Kind
from weightgen.fields.signals import Samples
from weightgen.fields.triplane import TriPlaneConfig, evaluate
from weightgen.storage import atomic

PROJECTIONS = 5
"""Steps that bring a point to the surface."""


def distances(config: TriPlaneConfig, kind: Kind, tensors: Mapping[str, Tensor], points: Tensor) -> Tensor:
    """What the fields say: points `[fields, n, 3]` → distances `[fields, n]`, at most `TRUNCATION`."""
    return kind.distance(evaluate(config, tensors, points)[..., 0])


def project(
    config: TriPlaneConfig, kind: Kind, tensors: Mapping[str, Tensor], points: Tensor, steps: int = PROJECTIONS
) -> Tensor:
    """Points `[fields, n, 3]` brought towards the surface: each goes as far as the field says, down its gradient."""
    points = points.detach()
    for _ in range(steps):
        with torch.enable_grad():
            points = points.requires_grad_()
            values = distances(config, kind, tensors, points)
            (gradient,) = torch.autograd.grad(values.sum(), points)
        direction = gradient / gradient.norm(dim=-1, keepdim=True).clamp(min=1e-8)
        points = (points - values[..., None] * direction).detach().clamp(-1, 1)
    return points


def measure(
    config: TriPlaneConfig, kind: Kind, tensors: Mapping[str, Tensor], samples: Samples, alive: Tensor
) -> Tensor:
    """How good fields are on what was held out, `[alive]`.

    Of a solid, the intersection over the union of the field's inside and the true one, at the probes; else the Chamfer
    distance between points of the true surface and points that began near it and were brought to the field's.
    """
    if kind.solid:
        inside = distances(config, kind, tensors, samples.probes[alive]) < 0
        return intersection_over_union(inside, samples.truths[alive] < 0)
    true = samples.surfaces[alive]
    start = true.roll(1, 1) + TRUNCATION / 3 * _noise(true.shape)
    found = project(config, kind, tensors, start)
    return chamfer(found, true)


def intersection_over_union(found: Tensor, true: Tensor) -> Tensor:
    """Of truths `[…, n]`, `[…]`; 1 where both are empty."""
    union = (found | true).sum(-1)
    return torch.where(union > 0, (found & true).sum(-1) / union.clamp(min=1), 1.0)


def chamfer(first: Tensor, second: Tensor) -> Tensor:
    """The mean distance to the nearest point of the other cloud, of both ways: `[fields, n, 3]` → `[fields]`."""
    found = []
    # A matrix of all pairs of all fields would take gigabytes.
    for one, other in zip(first, second, strict=True):
        pairs = torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist")
        found.append((pairs.amin(1).mean() + pairs.amin(0).mean()) / 2)
    return torch.stack(found)


def spread(config: TriPlaneConfig, kind: Kind, tensors: Mapping[str, Tensor], count: int, seed: int = 0) -> Tensor:
    """Points on the surface of one field, `[count, 3]`, found from the field alone.

    Args:
        tensors: of one field, `[1, …]`.

    Raises:
        WeightgenError: if it has no surface.
    """
    generator = torch.Generator().manual_seed(seed)
    found: list[Tensor] = []
    for _ in range(200):
        points = 2 * torch.rand(1, 16384, 3, generator=generator) - 1
        with torch.no_grad():
            near = distances(config, kind, tensors, points).abs()[0] < TRUNCATION / 2
        points = project(config, kind, tensors, points[:, near])
        with torch.no_grad():
            there = distances(config, kind, tensors, points).abs()[0] < TRUNCATION / 5
        found.append(points[0, there])
        if sum(map(len, found)) >= count:
            return torch.cat(found)[:count]
    raise WeightgenError("the field has no surface", got=f"{sum(map(len, found))} points of it", expected=str(count))


def march(
    config: TriPlaneConfig, kind: Kind, tensors: Mapping[str, Tensor], resolution: int = 64, level: float | None = None
) -> tuple[Tensor, Tensor]:
    """The surface of one field as a mesh, by marching cubes.

    Args:
        tensors: of one field, `[1, …]`.
        resolution: cells along each axis.
        level: the distance where the surface is; 0 for solids, and for an unsigned field, which is nowhere 0, `SHELL`:
            the mesh then goes around its surface.

    Returns:
        Vertices `[n, 3]` and faces int64 `[m, 3]`.

    Raises:
        WeightgenError: if the field has no surface.
        MissingDataError: if scikit-image is not installed.
    """
    try:
        from skimage.measure import marching_cubes
    except ImportError as error:
        raise MissingDataError(
            "marching cubes need scikit-image", remedy="install it: pip install 'weightgen[fields]'"
        ) from error
    level = (0.0 if kind.solid else SHELL) if level is None else level
    line = torch.linspace(-1, 1, resolution + 1)
    with torch.no_grad():
        slabs = [
            distances(config, kind, tensors, torch.cartesian_prod(part, line, line)[None])[0] for part in line.split(8)
        ]
    values = torch.cat(slabs).view(resolution + 1, resolution + 1, resolution + 1)
    if not values.amin() < level < values.amax():
        raise WeightgenError(
            "the field has no surface", got=f"values {values.amin().item():.3f} to {values.amax().item():.3f}",
            expected=f"some below and some above {level:g}",
        )  # fmt: skip
    vertices, faces, _, _ = marching_cubes(values.numpy(), level, spacing=(2 / resolution,) * 3)
    return torch.from_numpy(vertices.copy()).float() - 1, torch.from_numpy(faces.copy()).long()


def write_mesh(path: Path | str, vertices: Tensor, faces: Tensor) -> None:
    """Writes a mesh as a PLY file, whole or not at all."""
    head = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    rows = numpy.empty(len(faces), dtype=[("count", "u1"), ("corners", "<i4", 3)])
    rows["count"], rows["corners"] = 3, faces.numpy()
    with atomic(path) as temporary:
        temporary.write_bytes(head.encode() + vertices.numpy().astype("<f4").tobytes() + rows.tobytes())


def write_points(path: Path | str, points: Tensor, colours: Tensor) -> None:
    """Writes points `[n, 3]` with colours `[n, 3]` of 0 to 255 as a PLY file, whole or not at all."""
    head = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n"
        + "".join(f"property float {axis}\n" for axis in "xyz")
        + "".join(f"property uchar {colour}\n" for colour in ("red", "green", "blue"))
        + "end_header\n"
    )
    rows = numpy.empty(len(points), dtype=[("place", "<f4", 3), ("colour", "u1", 3)])
    rows["place"], rows["colour"] = points.numpy(), colours.numpy()
    with atomic(path) as temporary:
        temporary.write_bytes(head.encode() + rows.tobytes())


def _noise(shape: torch.Size) -> Tensor:
    # Always the same, so that measuring changes no result.
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))
