"""Structural coordinates of tokens as vectors, for networks that must know where in a network each token sits."""

import math

import torch
from torch import Tensor, nn

from weightgen.tokenizers.layout import COORDINATES


class StructureEmbedding(nn.Module):
    """Structural coordinates to a vector: waves of several lengths over each coordinate, then a small network.

    Shares get waves down to 1/64 of the whole, counts get waves of 2 to 256 units, so that single rows are told apart
    and rows of unseen sizes still lie between seen ones.
    """

    octaves = 7

    def __init__(self, width: int) -> None:
        super().__init__()
        shares = torch.tensor([name.endswith("_share") for name in COORDINATES])
        octave = torch.arange(self.octaves).float()
        frequencies = torch.where(shares[:, None], math.pi * 2**octave, math.pi / 2**octave)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.network = nn.Sequential(
            nn.Linear(len(COORDINATES) * (2 * self.octaves + 1), width), nn.GELU(), nn.Linear(width, width)
        )

    def forward(self, coordinates: Tensor) -> Tensor:
        """`[tokens, coordinates]` → `[tokens, width]`."""
        phase = (coordinates[:, :, None] * self.frequencies).flatten(1)
        return self.network(torch.cat([coordinates / 8, phase.sin(), phase.cos()], dim=1))
