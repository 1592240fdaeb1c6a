"""What the catalogue knows of a tensor's values, and the embedding space that is made of it.

The space `statistics-v1` holds, for any architecture, 16 places in depth × 8 statistics: of each floating-point tensor,
in the natural order of names, the mean, the deviation, the percentiles 5, 25, 50, 75 and 95, and a tenth of the decimal
logarithm of its size; between tensors the statistics are interpolated over depth. Nearness is Euclidean.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy

if TYPE_CHECKING:
    from torch import Tensor

SPACE = "statistics-v1"
PLACES, STATISTICS = 16, 8
DIMENSION = PLACES * STATISTICS

PERCENTILES = (5, 25, 50, 75, 95)
SAMPLE = 65_536
"""Values that percentiles are taken of; a greater tensor is sampled at equal steps."""

CHUNK = 2**22
"""Values that are looked at at once, which bounds the memory that a summary takes."""


@dataclass(frozen=True)
class Summary:
    """Figures of one tensor.

    Args:
        norm: Euclidean; None if a value is not finite.
        zeros: how many values are 0.
        non_finite: how many are NaN or infinite.
        profile: float32 `[8]`, its part of the embedding; None for integers and for tensors without a finite value.
    """

    norm: float | None
    zeros: int
    non_finite: int
    profile: numpy.ndarray | None


def summarise(tensor: "Tensor") -> Summary:
    """The Summary of a tensor, made with bounded memory."""
    flat = tensor.detach().reshape(-1)
    if not flat.is_floating_point():
        values = flat.numpy()
        return Summary(float(numpy.sqrt(numpy.square(values, dtype=numpy.float64).sum())),
                       int(values.size - numpy.count_nonzero(values)), 0, None)  # fmt: skip
    total = squares = 0.0
    zeros = non_finite = 0
    for part in flat.split(CHUNK):
        # float32 holds every value of the smaller kinds exactly, and numpy has no bfloat16.
        values = (part if part.element_size() == 8 else part.float()).numpy()
        finite = numpy.isfinite(values)
        bad = values.size - int(numpy.count_nonzero(finite))
        values = values[finite] if bad else values
        zeros += values.size - int(numpy.count_nonzero(values))
        non_finite += bad
        total += float(values.sum(dtype=numpy.float64))
        squares += float(numpy.vdot(values, values)) if values.size < 4096 else _squares(values)
    number = flat.numel() - non_finite
    norm = float(numpy.sqrt(squares)) if not non_finite and numpy.isfinite(squares) else None
    return Summary(norm, zeros, non_finite, _profile(flat, total, squares, number) if number else None)


def _squares(values: numpy.ndarray) -> float:
    return float(numpy.square(values, dtype=numpy.float64).sum())


def _profile(flat: "Tensor", total: float, squares: float, number: int) -> numpy.ndarray:
    step = max(1, -(-flat.numel() // SAMPLE))
    sample = flat[::step].double().numpy()
    sample = numpy.sort(sample[numpy.isfinite(sample)])
    mean = total / number
    deviation = max(squares / number - mean * mean, 0.0) ** 0.5
    # The nearest rank: the same on every machine, and in no need of interpolation.
    ranks = [round(percentile / 100 * (len(sample) - 1)) for percentile in PERCENTILES] if len(sample) else []
    percentiles = sample[ranks] if ranks else [mean] * len(PERCENTILES)
    values = numpy.array([mean, deviation, *percentiles, numpy.log10(number) / 10])
    return numpy.clip(values, -1e6, 1e6).astype(numpy.float32)


def embedding(profiles: Mapping[str, numpy.ndarray | None]) -> numpy.ndarray:
    """A network's place in the space `statistics-v1`, float32 `[128]`; name of tensor → its profile."""
    rows = [profiles[name] for name in sorted(profiles, key=natural) if profiles[name] is not None]
    if not rows:
        return numpy.zeros(DIMENSION, numpy.float32)
    matrix = numpy.stack(rows)  # type: ignore[arg-type]  # [tensors, statistics]
    depth = numpy.linspace(0, len(matrix) - 1, PLACES)
    below = numpy.floor(depth).astype(int)
    above = numpy.minimum(below + 1, len(matrix) - 1)
    share = (depth - below)[:, None]
    return ((1 - share) * matrix[below] + share * matrix[above]).astype(numpy.float32).reshape(-1)


def natural(name: str) -> list[tuple[int, int | str]]:
    """A key that sorts `layer2` before `layer10`."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d{1,18})", name) if part]
