"""Vectors: biases, norms and running statistics in a byte a value, beside the codes.

They are one value in a hundred, and networks feel their errors most: so they are not left to a codebook for weights.
Each vector lies on an even grid between its own least and greatest value. A running variance lies on a grid of its
logarithm, since its values differ by orders of size and must stay positive.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

BITS, FRAME_BITS = 8, 64
SHORTEST = 4
"""A vector of fewer values is kept as it is: its grid would cost what it saves."""
LEAST = 1e-30
"""Below it a variance is taken for this."""


def logarithmic(name: str) -> bool:
    """Whether a tensor is laid out by its logarithm."""
    return name.rpartition(".")[2] == "running_var"


def quantise(vectors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Vectors to uint8 `[values]` and their grids, float32 `[vectors, 2]`: least value and step."""
    grids, steps = [], []
    for name, vector in vectors.items():
        values = vector.double().flatten()
        if logarithmic(name):
            values = values.clamp_min(LEAST).log2()
        least, most = values.min().float(), values.max().float()
        step = (most / 255 - least / 255).float()
        grids.append(torch.stack([least, step]))
        place = (values - least.double()) / torch.where(step > 0, step, 1.0).double()
        steps.append(place.round().clamp(0, 255).to(torch.uint8))
    return torch.cat([torch.zeros(0, dtype=torch.uint8), *steps]), torch.stack(grids) if grids else torch.zeros(0, 2)


def dequantise(steps: Tensor, grids: Tensor, names: Sequence[str], sizes: Sequence[int]) -> dict[str, Tensor]:
    """The inverse of `quantise`, but for the rounding: float64 vectors, flat."""
    found = {}
    for name, part, grid in zip(names, steps.split(list(sizes)), grids.double(), strict=True):
        values = grid[0] + part.double() * grid[1]
        found[name] = torch.exp2(values) if logarithmic(name) else values
    return found
