"""Scales: what brings the rows of any network to unit size, so that one codebook serves all of them.

A row has its own scale if it is long enough; shorter rows of a layer share one, else scales would cost more than they
give. A scale is a power of two in steps of a quarter octave, one byte.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from weightgen.tokenizers.coordinates import row_width
from weightgen.tokenizers.layout import Layout
from weightgen.tokenizers.rows import row_count

STEPS = 4
"""Steps an octave: the size of a row is then within 9 % of one."""
BITS = 8
NOTHING = -128
"""The scale of rows that are all zeros."""


@dataclass(frozen=True)
class Scaling:
    """Which tokens of a layout share a scale.

    Args:
        group: int64 `[tokens]`, the number of the scale of each token.
        values: int64 `[scales]`, how many values of the network each scale stands for.
    """

    group: Tensor
    values: Tensor

    @classmethod
    def of(cls, layout: Layout, least: int) -> "Scaling":
        """A scale for every row of at least `least` values, and for as many shorter ones as reach it together."""
        groups, values, first = [], [], 0
        for block in layout.blocks:
            rows, width = row_count(block, layout.shapes), row_width(block, layout.shapes)
            together = -(-least // width)
            number = torch.arange(rows) // together
            columns = -(-width // layout.chunk)
            groups.append((first + number).repeat_interleave(columns))
            values.append(torch.bincount(number) * width)
            first += len(values[-1])
        empty = torch.zeros(0, dtype=torch.int64)
        return cls(torch.cat([empty, *groups]), torch.cat([empty, *values]))

    def measure(self, tokens: Tensor) -> Tensor:
        """The scales of tokens `[tokens, chunk]`, int8 `[scales]`."""
        energy = torch.zeros(len(self.values), dtype=torch.float64)
        energy.index_add_(0, self.group, tokens.double().square().sum(1))
        octaves = (energy / self.values).log2() / 2
        steps = (octaves * STEPS).round().clamp(NOTHING + 1, -NOTHING - 1)
        return torch.where(energy > 0, steps, NOTHING).to(torch.int8)

    def factors(self, scales: Tensor) -> Tensor:
        """What the values of each token were divided by, float32 `[tokens, 1]`; zero where all are zeros."""
        factors = torch.where(scales == NOTHING, 0.0, torch.exp2(scales.float() / STEPS))
        return factors[self.group, None]

    def normalise(self, tokens: Tensor, scales: Tensor) -> Tensor:
        """Tokens of about unit size, `[tokens, chunk]`."""
        factors = self.factors(scales)
        return tokens / torch.where(factors > 0, factors, 1.0)
