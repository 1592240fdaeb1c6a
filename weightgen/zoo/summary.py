"""What the catalogue knows of a tensor's values, and the embedding space that is made of it.

The space `statistics-v1` holds, for any architecture, 16 places in depth × 8 statistics: of each floating-point tensor,
in the natural order of names, the mean, the deviation, the percentiles 5, 25, 50, 75 and 95, and a tenth of the decimal
logarithm of its size; between tensors the statistics are interpolated over depth. Nearness is Euclidean.
"""

import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

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


class Summary(NamedTuple):
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
    return summaries([tensor])[0]


def summaries(tensors: Sequence["Tensor"]) -> list[Summary]:
    """The Summary of each tensor. Those of one kind and size are looked at together, and give the same as alone."""
    flats = [_numpy(tensor) for tensor in tensors]
    alike: dict[tuple[numpy.dtype, int], list[int]] = {}
    for index, flat in enumerate(flats):
        alike.setdefault((flat.dtype, flat.size), []).append(index)
    found: dict[int, Summary] = {}
    for (_, size), indices in alike.items():
        step = max(1, CHUNK // max(size, 1))
        for start in range(0, len(indices), step):
            part = indices[start : start + step]
            matrix = numpy.stack([flats[index] for index in part]) if len(part) > 1 else flats[part[0]][None]
            found.update(zip(part, _summarised(matrix), strict=True))
    return [found[index] for index in range(len(flats))]


@numpy.errstate(invalid="ignore", over="ignore")
def _summarised(matrix: numpy.ndarray) -> list[Summary]:
    """The Summary of each row of `[tensors, values]`."""
    rows, size = matrix.shape
    if matrix.dtype.kind != "f":
        norms = numpy.square(matrix, dtype=numpy.float64).sum(axis=1) ** 0.5
        zeros = size - numpy.count_nonzero(matrix, axis=1)
        return [Summary(norm, zero, 0, None) for norm, zero in zip(norms.tolist(), zeros.tolist(), strict=True)]
    total, squares = numpy.zeros(rows), numpy.zeros(rows)
    zeros, non_finite = numpy.zeros(rows, int), numpy.zeros(rows, int)
    for start in range(0, size, CHUNK):
        part = matrix[:, start : start + CHUNK]
        zeros += part.shape[1] - numpy.count_nonzero(part, axis=1)
        # Twice the precision: the sum shows whether all are finite, and the squares of float32 do not overflow.
        values = part.astype(numpy.float64)
        sums = values.sum(axis=1)
        if not numpy.isfinite(sums).all():
            finite = numpy.isfinite(values)
            non_finite += part.shape[1] - numpy.count_nonzero(finite, axis=1)
            values[~finite] = 0
            sums = values.sum(axis=1)
        total += sums
        squares += numpy.square(values, out=values).sum(axis=1)
    norms = numpy.where((non_finite == 0) & numpy.isfinite(squares), squares**0.5, numpy.nan).tolist()
    profiles = _profiles(matrix, total, squares, size - non_finite)
    return [
        Summary(None if math.isnan(norm) else norm, zero, odd, profile if odd < size else None)
        for norm, zero, odd, profile in zip(norms, zeros.tolist(), non_finite.tolist(), profiles, strict=True)
    ]


def _numpy(tensor: "Tensor") -> numpy.ndarray:
    """The values, flat; bfloat16, which numpy lacks, as float32."""
    import torch

    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy().reshape(-1)


def _profiles(
    matrix: numpy.ndarray, total: numpy.ndarray, squares: numpy.ndarray, numbers: numpy.ndarray
) -> numpy.ndarray:
    """The profile of each row of `[tensors, values]`, float32 `[tensors, 8]`; of rows without a finite value no sense.

    Args:
        total: sums of the finite values of each row.
        squares: sums of their squares.
        numbers: how many of them there are.
    """
    rows, size = matrix.shape
    profiles = numpy.zeros((rows, STATISTICS))
    counted = numpy.maximum(numbers, 1)
    mean = total / counted
    profiles[:, 0] = mean
    profiles[:, 1] = numpy.maximum(squares / counted - mean * mean, 0) ** 0.5
    profiles[:, 7] = numpy.log10(counted) / 10
    sample = matrix[:, :: max(1, -(-size // SAMPLE))]
    # numpy sorts values of half the width many times more slowly.
    sample = numpy.sort(sample if sample.dtype.itemsize >= 4 else sample.astype(numpy.float32), axis=1)
    whole = numpy.isfinite(sample[:, [0, -1]]).all(axis=1) if size else numpy.zeros(rows, bool)
    profiles[whole, 2:7] = sample[whole][:, _ranks(sample.shape[1])] if whole.any() else 0
    for row in numpy.flatnonzero(~whole):
        finite = sample[row][numpy.isfinite(sample[row])]
        profiles[row, 2:7] = finite[_ranks(len(finite))] if len(finite) else mean[row]
    return numpy.clip(profiles, -1e6, 1e6).astype(numpy.float32)


@functools.lru_cache(maxsize=256)
def _ranks(number: int) -> numpy.ndarray:
    """Where the percentiles stand among sorted values: the nearest ranks, the same on every machine."""
    return numpy.rint(numpy.array(PERCENTILES) / 100 * (number - 1)).astype(int)


def embedding(profiles: Mapping[str, numpy.ndarray | None]) -> numpy.ndarray:
    """A network's place in the space `statistics-v1`, float32 `[128]`; name of tensor → its profile."""
    return embeddings([profiles])[0]


def embeddings(networks: Sequence[Mapping[str, numpy.ndarray | None]]) -> numpy.ndarray:
    """The place of each network, float32 `[networks, 128]`, from name of tensor → its profile."""
    places = numpy.zeros((len(networks), DIMENSION), numpy.float32)
    rows = [
        [profile for name in _ordered(tuple(profiles)) if (profile := profiles[name]) is not None]
        for profiles in networks
    ]
    alike: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        alike.setdefault(len(row), []).append(index)
    for tensors, indices in alike.items():
        if tensors:
            profiles = numpy.stack([profile for index in indices for profile in rows[index]])
            matrix = profiles.reshape(len(indices), tensors, STATISTICS)
            below, above, share = _depths(tensors)
            between = (1 - share) * matrix[:, below] + share * matrix[:, above]  # [networks, places, statistics]
            places[indices] = between.reshape(len(indices), DIMENSION)
    return places


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
