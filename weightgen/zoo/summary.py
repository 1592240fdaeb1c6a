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
            figures = Figures(size, len(part))
            figures.add(numpy.stack([flats[index] for index in part]) if len(part) > 1 else flats[part[0]][None])
            found.update(zip(part, figures.summaries(), strict=True))
    return [found[index] for index in range(len(flats))]


class Figures:
    """The figures of tensors of one size, whose values come in parts; those in a row are looked at together.

    Args:
        size: values of each tensor.
        rows: how many tensors.
    """

    def __init__(self, size: int, rows: int = 1) -> None:
        self.size, self.rows, self.seen = size, rows, 0
        self.total, self.squares = numpy.zeros(rows), numpy.zeros(rows)
        self.zeros, self.non_finite = numpy.zeros(rows, int), numpy.zeros(rows, int)
        self.step = max(1, -(-size // SAMPLE))
        self.sample: list[numpy.ndarray] = []

    @numpy.errstate(invalid="ignore", over="ignore")
    def add(self, part: "numpy.ndarray | Tensor") -> None:
        """The next values: `[rows, values]`, or those of the one tensor. All parts but the last have whole chunks."""
        matrix = part if isinstance(part, numpy.ndarray) else _numpy(part)[None]
        # A copy, since a view would keep all values in memory.
        self.sample.append(_numbers(matrix[:, -self.seen % self.step :: self.step]).copy())
        # Twice the precision: the sum shows whether all are finite, and the squares of float32 do not overflow.
        buffer = numpy.empty((self.rows, min(matrix.shape[1], CHUNK)))
        for start in range(0, matrix.shape[1], CHUNK):
            numbers = _numbers(matrix[:, start : start + CHUNK])
            values = buffer[:, : numbers.shape[1]]
            numpy.copyto(values, numbers)
            self.zeros += _count(numbers == 0)
            sums = values.sum(axis=1)
            if not numpy.isfinite(sums).all():
                finite = numpy.isfinite(values)
                self.non_finite += _count(~finite)
                values[~finite] = 0
                sums = values.sum(axis=1)
            self.total += sums
            self.squares += numpy.square(values, out=values).sum(axis=1)
        self.seen += matrix.shape[1]

    def summaries(self) -> list[Summary]:
        """The Summary of each tensor, after all of its values."""
        whole = (self.non_finite == 0) & numpy.isfinite(self.squares)
        norms = numpy.where(whole, self.squares**0.5, numpy.nan).tolist()
        floating = self.sample[0].dtype.kind == "f"
        profiles = self._profiles() if floating else [None] * self.rows
        return [
            Summary(None if math.isnan(norm) else norm, zero, odd, profile if odd < self.size else None)
            for norm, zero, odd, profile in zip(
                norms, self.zeros.tolist(), self.non_finite.tolist(), profiles, strict=True
            )
        ]

    def _profiles(self) -> numpy.ndarray:
        """The profile of each row, float32 `[rows, 8]`; of rows without a finite value it means nothing."""
        profiles = numpy.zeros((self.rows, STATISTICS))
        numbers = numpy.maximum(self.size - self.non_finite, 1)
        mean = self.total / numbers
        profiles[:, 0] = mean
        profiles[:, 1] = numpy.maximum(self.squares / numbers - mean * mean, 0) ** 0.5
        profiles[:, 7] = numpy.log10(numbers) / 10
        sample = numpy.concatenate(self.sample, axis=1)
        # numpy sorts values of half the width many times more slowly.
        sample = numpy.sort(sample if sample.dtype.itemsize >= 4 else sample.astype(numpy.float32), axis=1)
        whole = numpy.isfinite(sample[:, [0, -1]]).all(axis=1) if self.size else numpy.zeros(self.rows, bool)
        profiles[whole, 2:7] = sample[whole][:, _ranks(sample.shape[1])] if whole.any() else 0
        for row in numpy.flatnonzero(~whole):
            finite = sample[row][numpy.isfinite(sample[row])]
            profiles[row, 2:7] = finite[_ranks(len(finite))] if len(finite) else mean[row]
        return numpy.clip(profiles, -1e6, 1e6).astype(numpy.float32)


def _count(marks: numpy.ndarray) -> list[int]:
    """How many are set in each row; numpy counts along an axis four times more slowly."""
    return [int(numpy.count_nonzero(row)) for row in marks]


def _numpy(tensor: "Tensor") -> numpy.ndarray:
    """The values, flat, without a copy; bfloat16, which numpy lacks, as the uint16 that no tensor is of."""
    import torch

    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.reshape(-1).view(torch.int16).numpy().view(numpy.uint16)
    return tensor.numpy().reshape(-1)


def _numbers(values: numpy.ndarray) -> numpy.ndarray:
    """What `_numpy` gave, as numbers: a bfloat16 is the upper half of a float32."""
    if values.dtype != numpy.uint16:
        return values
    return (values.astype(numpy.uint32) << 16).view(numpy.float32)


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
