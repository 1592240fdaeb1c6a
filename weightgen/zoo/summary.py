"""What the catalogue knows of a tensor's values, and the embedding space that is made of it.

The space `statistics-v1` holds, for any architecture, 16 places in depth × 8 statistics: of each floating-point tensor,
in the natural order of names, the mean, the deviation, the percentiles 5, 25, 50, 75 and 95, and a tenth of the decimal
logarithm of its size; between tensors the statistics are interpolated over depth. Nearness is Euclidean.
"""

import functools
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

PERCENTILES = numpy.array([0.05, 0.25, 0.5, 0.75, 0.95])
SAMPLE = 65_536
"""Values that percentiles are taken of; a greater tensor is sampled at equal steps."""

CHUNK = 2**17
"""Values that are looked at at once: few enough to stay in the processor's cache from one pass to the next."""


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
        squares = float(numpy.square(values, dtype=numpy.float64).sum())
        return Summary(squares**0.5, values.size - int(numpy.count_nonzero(values)), 0, None)
    total = squares = 0.0
    zeros = non_finite = 0
    for part in flat.split(CHUNK) if len(flat) > CHUNK else [flat]:
        values = _numpy(part)
        part_sum = float(values.sum(dtype=numpy.float64))
        if not numpy.isfinite(part_sum):
            finite = numpy.isfinite(values)
            non_finite += values.size - int(numpy.count_nonzero(finite))
            values = values[finite]
            part_sum = float(values.sum(dtype=numpy.float64))
        total += part_sum
        zeros += values.size - int(numpy.count_nonzero(values))
        squares += _squares(values)
    number = len(flat) - non_finite
    norm = squares**0.5 if not non_finite and numpy.isfinite(squares) else None
    return Summary(norm, zeros, non_finite, _profile(flat, total, squares, number) if number else None)


def _numpy(flat: "Tensor") -> numpy.ndarray:
    # float32 holds every value of the smaller kinds exactly, and numpy has no bfloat16.
    return (flat if flat.element_size() >= 4 else flat.float()).numpy()


def _squares(values: numpy.ndarray) -> float:
    with numpy.errstate(over="ignore"):
        quick = float(numpy.vdot(values, values))
    if quick < 1e30:
        return quick
    with numpy.errstate(over="ignore"):
        return float(numpy.square(values, dtype=numpy.float64).sum())


def _profile(flat: "Tensor", total: float, squares: float, number: int) -> numpy.ndarray:
    sample = numpy.sort(_numpy(flat[:: -(-len(flat) // SAMPLE)] if len(flat) > SAMPLE else flat))
    if not (numpy.isfinite(sample[0]) and numpy.isfinite(sample[-1])):
        sample = sample[numpy.isfinite(sample)]
    mean = total / number
    profile = numpy.empty(STATISTICS)
    profile[0] = mean
    profile[1] = max(squares / number - mean * mean, 0.0) ** 0.5
    # The nearest rank: the same on every machine, and in no need of interpolation.
    profile[2:7] = sample[numpy.rint(PERCENTILES * (len(sample) - 1)).astype(int)] if len(sample) else mean
    profile[7] = numpy.log10(number) / 10
    return numpy.clip(profile, -1e6, 1e6).astype(numpy.float32)


def embedding(profiles: Mapping[str, numpy.ndarray | None]) -> numpy.ndarray:
    """A network's place in the space `statistics-v1`, float32 `[128]`; name of tensor → its profile."""
    rows = [profile for name in _ordered(tuple(profiles)) if (profile := profiles[name]) is not None]
    if not rows:
        return numpy.zeros(DIMENSION, numpy.float32)
    matrix = numpy.stack(rows)  # [tensors, statistics]
    below, above, share = _depths(len(matrix))
    return ((1 - share) * matrix[below] + share * matrix[above]).astype(numpy.float32).reshape(-1)


@functools.lru_cache(maxsize=256)
def _depths(tensors: int) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """For each place the tensors between which it lies, and the share of the second."""
    depth = numpy.linspace(0, tensors - 1, PLACES)
    below = numpy.floor(depth).astype(int)
    return below, numpy.minimum(below + 1, tensors - 1), (depth - below)[:, None]


@functools.lru_cache(maxsize=256)
def _ordered(names: tuple[str, ...]) -> list[str]:
    return sorted(names, key=natural)


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts `layer2` before `layer10`."""
    parts = re.split(r"(\d{1,18})", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]
