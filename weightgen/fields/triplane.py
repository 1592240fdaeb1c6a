"""The tri-plane: a field over [-1, 1]³ stored as three feature planes and a small decoder.

After "Neural Processing of Tri-Plane Hybrid Neural Fields", https://arxiv.org/abs/2310.01140. Notation: a point
p = (x, y, z) is projected to the three coordinate planes; their features, read between four cells, are joined (summed
in the paper), put beside an encoding of p itself, (p, sin 2ᵏp, cos 2ᵏp), and decoded by a small network. Everything
here works on many fields at once: tensors have a leading axis of fields, and a layer of all decoders is one batched
product.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from weightgen.errors import ArchitectureError
from weightgen.registry import unknown_name

AGGREGATIONS = ("sum", "concat", "product")
DECODERS = ("siren", "relu")
ORDER = "xy-xz-yz"
"""The order of the planes; of each, the first letter runs along its columns and the second along its rows."""

FIRST_SCALE = 1e-3
"""Deviation of fresh plane features, as published."""
FREQUENCY = 30.0
"""What a SIREN multiplies each layer's sums with, https://arxiv.org/abs/2006.09661."""

LIMITS = {"resolution": (2, 1024), "channels": (1, 1024), "outputs": (1, 64), "frequencies": (0, 16)}


@dataclass(frozen=True)
class TriPlaneConfig:
    """The form of a tri-plane; the defaults are the published ones.

    Args:
        resolution: rows and columns of each plane.
        channels: features of each cell.
        hidden: width of each hidden layer of the decoder.
        outputs: values at a point: 1 for distances and occupancy, 4 for radiance (density, red, green, blue).
        aggregation: how the features of the three planes are joined: `sum`, `concat` or `product`.
        decoder: `siren` (sines) or `relu`.
        frequencies: octaves of the encoding of the point; 0 for the bare coordinates.
        order: the coordinates of each plane, `xy-xz-yz`; see `ORDER`.
        align_corners: whether the outermost cells lie at -1 and 1 (else half a cell within), as in torch.

    Raises:
        ArchitectureError: for a value out of range.
    """

    resolution: int = 32
    channels: int = 16
    hidden: tuple[int, ...] = (64, 64, 64)
    outputs: int = 1
    aggregation: str = "sum"
    decoder: str = "siren"
    frequencies: int = 10
    order: str = ORDER
    align_corners: bool = True

    def __post_init__(self) -> None:
        for name, (low, high) in LIMITS.items():
            if not low <= getattr(self, name) <= high:
                raise ArchitectureError(
                    "a size out of range", where=f"tri-plane {name}", got=getattr(self, name),
                    expected=f"{low} to {high}",
                )  # fmt: skip
        if not self.hidden or not all(1 <= width <= 4096 for width in self.hidden):
            raise ArchitectureError(
                "a size out of range", where="tri-plane hidden", got=self.hidden, expected="widths of 1 to 4096"
            )
        for name, value, known in (
            ("aggregation", self.aggregation, AGGREGATIONS),
            ("decoder", self.decoder, DECODERS),
        ):
            if value not in known:
                raise unknown_name(f"tri-plane {name}", value, known)
        planes = [tuple(plane) for plane in self.order.split("-")]
        if sorted(map(sorted, planes)) != [["x", "y"], ["x", "z"], ["y", "z"]]:
            raise ArchitectureError(
                "not an order of planes", where="tri-plane order", got=self.order, expected=f"each pair once: {ORDER}"
            )

    @property
    def features(self) -> int:
        """What the decoder reads at a point."""
        joined = 3 * self.channels if self.aggregation == "concat" else self.channels
        return joined + 3 + 6 * self.frequencies

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name → shape of every tensor of one field."""
        widths = (self.features, *self.hidden, self.outputs)
        found: dict[str, tuple[int, ...]] = {"planes": (3, self.channels, self.resolution, self.resolution)}
        for layer, (read, written) in enumerate(itertools.pairwise(widths)):
            found |= {f"decoder.{layer}.weight": (written, read), f"decoder.{layer}.bias": (written,)}
        return found


def draw(config: TriPlaneConfig, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """The tensors of one fresh field; from torch's own generator if none is given."""
    found = {}
    for name, shape in config.shapes.items():
        if name == "planes":
            # A product of features near 0 would have no gradient.
            start = 1.0 if config.aggregation == "product" else 0.0
            found[name] = start + FIRST_SCALE * torch.randn(shape, generator=generator)
            continue
        read = config.shapes[name.replace("bias", "weight")][1]
        if config.decoder == "siren" and name.startswith("decoder.0."):
            bound = 1 / read
        elif config.decoder == "siren":
            bound = math.sqrt(6 / read) / FREQUENCY
        else:
            bound = 1 / math.sqrt(read)
        found[name] = (2 * torch.rand(shape, generator=generator) - 1) * bound
    return found


def initial(config: TriPlaneConfig, seeds: Sequence[int]) -> dict[str, Tensor]:
    """Fresh fields, one a seed, as `[fields, …]` tensors."""
    fields = [draw(config, torch.Generator().manual_seed(seed)) for seed in seeds]
    return {name: torch.stack([field[name] for field in fields]) for name in config.shapes}


def encode(points: Tensor, frequencies: int) -> Tensor:
    """Points `[…, 3]` beside sines and cosines of 2ᵏ times them, `[…, 3 + 6 · frequencies]`."""
    if not frequencies:
        return points
    turned = (points[..., None, :] * (2.0 ** torch.arange(frequencies, device=points.device))[:, None]).flatten(-2)
    return torch.cat([points, turned.sin(), turned.cos()], -1)


def sample_planes(config: TriPlaneConfig, planes: Tensor, points: Tensor) -> Tensor:
    """Features of points, read between four cells of each plane and joined.

    torch's `grid_sample` over all planes of all fields at once; of the forms that were measured beside it none is
    faster by more than a fifth (CONTRIBUTING.md).

    Args:
        planes: `[fields, 3, channels, rows, columns]`.
        points: `[fields, n, 3]`; what lies outside of [-1, 1] has the features of the nearest edge.

    Returns:
        `[fields, n, channels]`, three times as many for `concat`.
    """
    fields, count = points.shape[:2]
    pairs = ["xyz".index(letter) for letter in config.order.replace("-", "")]
    # [fields, n, 6] → [fields · 3, 1, n, 2]
    grid = points[..., pairs].unflatten(-1, (3, 2)).transpose(1, 2).reshape(3 * fields, 1, count, 2)
    read = functional.grid_sample(
        planes.flatten(0, 1), grid, padding_mode="border", align_corners=config.align_corners
    ).view(fields, 3, config.channels, count)
    if config.aggregation == "concat":
        return read.flatten(1, 2).transpose(1, 2)
    joined = read.sum(1) if config.aggregation == "sum" else read.prod(1)
    return joined.transpose(1, 2)


def evaluate(config: TriPlaneConfig, tensors: Mapping[str, Tensor], points: Tensor) -> Tensor:
    """The values of many fields, each at its own points.

    Args:
        tensors: as of `initial`, `[fields, …]`.
        points: `[fields, n, 3]`.

    Returns:
        `[fields, n, outputs]`, raw: see `weightgen.fields.kinds` for what they mean.
    """
    values = torch.cat([sample_planes(config, tensors["planes"], points), encode(points, config.frequencies)], -1)
    last = len(config.hidden)
    for layer in range(last + 1):
        weight, bias = tensors[f"decoder.{layer}.weight"], tensors[f"decoder.{layer}.bias"]
        values = torch.baddbmm(bias[:, None], values, weight.transpose(1, 2))
        if layer < last:
            values = torch.sin(FREQUENCY * values) if config.decoder == "siren" else values.relu()
    return values


def reorder(planes: Tensor, order: str, wanted: str = ORDER) -> Tensor:
    """Planes `[…, 3, channels, rows, columns]` of one order in another: exact, only places change."""
    names = order.split("-")
    found = []
    for pair in wanted.split("-"):
        index = next(i for i, name in enumerate(names) if sorted(name) == sorted(pair))
        plane = planes[..., index, :, :, :]
        found.append(plane if names[index] == pair else plane.transpose(-1, -2))
    return torch.stack(found, -4)


class TriPlane(nn.Module):
    """One field as a module: the recipe `weightgen/triplane?…` builds it.

    Args:
        config: its form.
    """

    def __init__(self, config: TriPlaneConfig) -> None:
        super().__init__()
        self.config = config
        tensors = draw(config)
        self.planes = nn.Parameter(tensors["planes"])
        self.decoder = nn.ModuleList()
        for layer in range(len(config.hidden) + 1):
            written, read = config.shapes[f"decoder.{layer}.weight"]
            linear = nn.Linear(read, written)
            linear.weight = nn.Parameter(tensors[f"decoder.{layer}.weight"])
            linear.bias = nn.Parameter(tensors[f"decoder.{layer}.bias"])
            self.decoder.append(linear)

    def example_inputs(self) -> tuple[Tensor, ...]:
        """One point."""
        return (torch.zeros(1, 3),)

    def forward(self, points: Tensor) -> Tensor:
        """Points `[n, 3]` to raw values `[n, outputs]`."""
        tensors = {name: tensor[None] for name, tensor in self.named_parameters()}
        return evaluate(self.config, tensors, points[None])[0]
