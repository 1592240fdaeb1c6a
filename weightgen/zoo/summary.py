"""What the catalogue knows of a tensor's values, and the embedding space that is made of it.

The space `statistics-v1` holds, for any architecture, 16 places in depth × 8 statistics: of each floating-point tensor,
in the natural order of names, the mean, the deviation, the percentiles 5, 25, 50, 75 and 95, and a tenth of the decimal
logarithm of its size; between tensors the statistics are interpolated over depth. Nearness is Euclidean.
"""

import functools
import math
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


@numpy.errstate(invalid="ignore", over="ignore")
def summarise(tensor: "Tensor") -> Summary:
    """The Summary of a tensor, made with bounded memory."""
    flat = _numpy(tensor)
    if flat.dtype.kind != "f":
        squares = float(numpy.square(flat, dtype=numpy.float64).sum())
        return Summary(squares**0.5, flat.size - int(numpy.count_nonzero(flat)), 0, None)
    total = squares = 0.0
    zeros = non_finite = 0
    for start in range(0, flat.size, CHUNK):
        values = _wide(flat[start : start + CHUNK])
        part = float(values.sum(dtype=numpy.float64))
        if not math.isfinite(part):
            finite = numpy.isfinite(values)
            non_finite += values.size - int(numpy.count_nonzero(finite))
            values = values[finite]
            part = float(values.sum(dtype=numpy.float64))
        total += part
        zeros += values.size - int(numpy.count_nonzero(values))
        squares += _squares(values)
    number = flat.size - non_finite
    norm = squares**0.5 if not non_finite and math.isfinite(squares) else None
    return Summary(norm, zeros, non_finite, _profile(flat, total, squares, number) if number else None)


def _numpy(tensor: "Tensor") -> numpy.ndarray:
    """The values, flat; bfloat16, which numpy lacks, as float32."""
    import torch

    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy().reshape(-1)


def _wide(values: numpy.ndarray) -> numpy.ndarray:
    """As float32, which holds every value of the smaller kinds exactly, or float64."""
    return values if values.dtype.itemsize >= 4 else values.astype(numpy.float32)


def _squares(values: numpy.ndarray) -> float:
    quick = float(numpy.vdot(values, values))
    if quick < 1e30:
        return quick
    return float(numpy.square(values, dtype=numpy.float64).sum())


def _profile(flat: numpy.ndarray, total: float, squares: float, number: int) -> numpy.ndarray:
    sample = numpy.sort(_wide(flat[:: -(-flat.size // SAMPLE)] if flat.size > SAMPLE else flat))
    if not (math.isfinite(sample[0]) and math.isfinite(sample[-1])):
        sample = sample[numpy.isfinite(sample)]
    mean = total / number
    deviation = max(squares / number - mean * mean, 0.0) ** 0.5
    percentiles = sample[_ranks(len(sample))].tolist() if len(sample) else [mean] * len(PERCENTILES)
    profile = [mean, deviation, *percentiles, math.log10(number) / 10]
    return numpy.array([min(max(value, -1e6), 1e6) for value in profile], numpy.float32)


@functools.lru_cache(maxsize=256)
def _ranks(number: int) -> numpy.ndarray:
    """Where the percentiles stand among sorted values: the nearest ranks, the same on every machine."""
    return numpy.rint(numpy.array(PERCENTILES) / 100 * (number - 1)).astype(int)


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
