"""What a field is fitted to: anything that knows how far points are from its surface, and samples of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy
import torch
from torch import Tensor

from weightgen.errors import WeightgenError

RADIUS = 0.9
"""Clouds, meshes and voxels are brought into a sphere of this radius around 0."""


class Signal(Protocol):
    """A surface within the unit sphere.

    `solid` says whether distances are signed, negative within.
    """

    @property
    def solid(self) -> bool: ...

    def distance(self, points: Tensor) -> Tensor:
        """Points `[n, 3]` → distance `[n]`."""
        ...

    def surface(self, count: int, generator: torch.Generator) -> Tensor:
        """Points on the surface, `[count, 3]`."""
        ...


@dataclass(frozen=True)
class Sampling:
    """Where a signal is looked at.

    Args:
        points: how many points there are to learn from; a step sees some of them.
        deviations: of the noise on points of the surface, equally many of each.
        uniform: the share of points that lie anywhere in the cube.
        probes: points that are held out, to measure on.
    """

    points: int = 8192
    deviations: tuple[float, ...] = (0.01, 0.03, 0.1)
    uniform: float = 0.25
    probes: int = 2048


@dataclass(frozen=True)
class Samples:
    """Samples of signals, one a row.

    Args:
        points: `[fields, n, 3]`, with `distances` `[fields, n]`.
        probes: `[fields, m, 3]`, held out, anywhere in the cube, with `truths` `[fields, m]`.
        surfaces: `[fields, m, 3]`, points of the surfaces.
    """

    points: Tensor
    distances: Tensor
    probes: Tensor
    truths: Tensor
    surfaces: Tensor


def sample(signals: Sequence[Signal], seeds: Sequence[int], sampling: Sampling) -> Samples:
    """Looks at each signal at points of its own, which its seed decides."""
    parts = [_sample(signal, seed, sampling) for signal, seed in zip(signals, seeds, strict=True)]
    return Samples(*(torch.stack(column) for column in zip(*parts, strict=True)))


def _sample(signal: Signal, seed: int, sampling: Sampling) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    near = round(sampling.points * (1 - sampling.uniform))
    deviations = torch.tensor(sampling.deviations)[torch.arange(near) % len(sampling.deviations)]
    points = signal.surface(near, generator) + deviations[:, None] * torch.randn(near, 3, generator=generator)
    points = torch.cat([points.clamp(-1, 1), _anywhere(sampling.points - near, generator)])
    probes = _anywhere(sampling.probes, generator)
    # In one call, since a look-up of many points is faster than several of few.
    distances, truths = signal.distance(torch.cat([points, probes])).split([len(points), len(probes)])
    return points, distances, probes, truths, signal.surface(sampling.probes, generator)


def _anywhere(count: int, generator: torch.Generator) -> Tensor:
    return 2 * torch.rand(count, 3, generator=generator) - 1


def brought_in(points: numpy.ndarray, where: str) -> tuple[numpy.ndarray, numpy.ndarray, float]:
    """Points `[n, 3]` in the sphere, as float32, and the centre and scale: inside = (points − centre) · scale.

    Raises:
        WeightgenError: if there are none, some are not finite, or all lie in one place.
    """
    if points.ndim != 2 or points.shape[1] != 3:
        raise WeightgenError("not points", where=where, got=f"an array {list(points.shape)}", expected="[n, 3]")
    if not len(points):
        raise WeightgenError("there are no points", where=where, expected="at least two, not in one place")
    points = points.astype(numpy.float64)
    wrong = int((~numpy.isfinite(points).all(1)).sum())
    if wrong:
        raise WeightgenError(
            "some points are not finite", where=where, got=f"{wrong} of {len(points)}", remedy="leave them out"
        )
    centre = (points.max(0) + points.min(0)) / 2
    widest = float(numpy.linalg.norm(points - centre, axis=1).max())
    if not 1e-12 * max(1.0, float(numpy.abs(centre).max())) < widest < 1e30:
        raise WeightgenError(
            "the points have no extent", where=where, got=f"{len(points)} in one place",
            expected="at least two, not in one place",
        )  # fmt: skip
    scale = RADIUS / widest
    return ((points - centre) * scale).astype(numpy.float32), centre, scale
