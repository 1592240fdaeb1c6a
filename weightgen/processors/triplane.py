"""Classifiers and a part segmenter that read tri-planes, and the plainer heads that they are compared with.

After "Neural Processing of Tri-Plane Hybrid Neural Fields", https://arxiv.org/abs/2310.01140. Each field began at
a random start of its own, so that the order of its channels means nothing: a channel is one token of a transformer
without positions, and the tokens' maximum is what is classified. Unlike in the paper a token holds one channel of all
three planes, since the decoder reads their sum: that is a third of the tokens. The sign of a channel means nothing
either and is drawn anew in training.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from weightgen.errors import ArchitectureError
from weightgen.fields.triplane import ORDER, encode
from weightgen.registry import unknown_name

HEADS = ("transformer", "cnn", "mlp", "decoder")
POINT_FREQUENCIES = 5
"""Octaves of the encoding of a point whose part is asked for."""


@dataclass(frozen=True)
class ProcessorConfig:
    """The form of a processor of fields.

    Args:
        resolution: rows and columns of the planes it reads.
        channels: of the planes.
        classes: how many there are.
        head: `transformer` (channels are tokens), `cnn` (planes are images), `mlp` (planes are vectors) or `decoder`
            (an MLP that reads the decoder's weights alone).
        decoder_values: weights and biases of a field's decoder, for the head `decoder`.
        parts: parts that points are told from; 0 for a classifier.
        width: of the tokens.
        layers: of the encoder.
        part_layers: of the part decoder.
        attention_heads: of every layer.
        margin: rows and columns that a crop leaves out, in all.
        mirrored: axes along which training fields are mirrored at random, such as `xy`.
        swapped: whether x and y of training fields are exchanged at random: with both mirrored, quarter turns.
        dropout: in every layer.

    Raises:
        UnknownNameError: for a head that does not exist.
        ArchitectureError: for sizes that make no processor.
    """

    resolution: int
    channels: int
    classes: int
    head: str = "transformer"
    decoder_values: int = 0
    parts: int = 0
    width: int = 128
    layers: int = 3
    part_layers: int = 2
    attention_heads: int = 4
    margin: int = 2
    mirrored: str = ""
    swapped: bool = False
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise unknown_name("head of a processor", self.head, HEADS)
        if not 0 <= self.margin < self.resolution or self.width % self.attention_heads or self.classes < 1:
            raise ArchitectureError(
                "sizes that make no processor", where="a processor of fields",
                got=f"resolution {self.resolution}, margin {self.margin}, width {self.width}, "
                f"{self.attention_heads} heads, {self.classes} classes",
                expected="a margin below the resolution, a width that the heads divide, at least one class",
            )  # fmt: skip
        if self.parts and self.head != "transformer":
            raise ArchitectureError("parts are told from tokens", got=f"head {self.head}", expected="head transformer")


class Processor(nn.Module):
    """A classifier of fields, or with `parts` a segmenter of points.

    Args:
        config: its form.
    """

    def __init__(self, config: ProcessorConfig) -> None:
        super().__init__()
        self.config = config
        side, width = config.resolution - config.margin, config.width
        if config.head == "transformer":
            self.embed = nn.Linear(3 * side * side, width)
            self.encoder = nn.TransformerEncoder(
                nn.TransformerEncoderLayer(
                    width, config.attention_heads, 2 * width, config.dropout, "gelu", batch_first=True, norm_first=True
                ),
                config.layers, enable_nested_tensor=False,
            )  # fmt: skip
        elif config.head == "cnn":
            self.encoder = _convolutions(3 * config.channels, width)
        else:
            read = config.decoder_values if config.head == "decoder" else 3 * config.channels * side * side
            self.encoder = _dense(read, width, config.dropout)
        if config.parts:
            self.point = nn.Linear(3 + 6 * POINT_FREQUENCIES + config.classes, width)
            self.asked = nn.ModuleList(_Asking(config) for _ in range(config.part_layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, config.parts or config.classes)

    def forward(self, planes: Tensor, decoders: Tensor) -> Tensor:
        """Class logits `[n, classes]`.

        Args:
            planes: `[n, 3, channels, rows, columns]`, in the canonical order.
            decoders: `[n, values]`; only the head `decoder` reads them.
        """
        config = self.config
        if config.head == "decoder":
            return self.head(self.norm(self.encoder(decoders)))
        if config.head == "transformer":
            return self.head(self.norm(self.tokens(planes).amax(1)))
        images = self.prepare(planes).flatten(1, 2)
        return self.head(self.norm(self.encoder(images if config.head == "cnn" else images.flatten(1))))

    def parts(self, planes: Tensor, points: Tensor, labels: Tensor) -> Tensor:
        """Part logits of points.

        Args:
            planes: `[n, 3, channels, rows, columns]`.
            points: `[n, m, 3]`.
            labels: int64 `[n]`, the class of each field.

        Returns:
            `[n, m, parts]`.
        """
        tokens = self.tokens(planes)
        known = functional.one_hot(labels, self.config.classes).float()[:, None].expand(-1, points.shape[1], -1)
        asked = self.point(torch.cat([encode(points, POINT_FREQUENCIES), known], -1))
        for layer in self.asked:
            asked = layer(asked, tokens)
        return self.head(self.norm(asked))

    def tokens(self, planes: Tensor) -> Tensor:
        """One token a channel: `[n, channels, width]`."""
        return self.encoder(self.embed(self.prepare(planes).transpose(1, 2).flatten(2)))

    def prepare(self, planes: Tensor) -> Tensor:
        """Planes of unit length at each cell, cropped: the middle, in training anywhere."""
        config = self.config
        if planes.shape[1:] != (3, config.channels, config.resolution, config.resolution):
            raise ArchitectureError(
                "planes of another form", where="a processor of fields", got=list(planes.shape[1:]),
                expected=[3, config.channels, config.resolution, config.resolution],
            )  # fmt: skip
        planes = planes * planes.square().sum((1, 2), keepdim=True).clamp(min=1e-12).rsqrt()
        planes = planes * (config.channels**0.5)
        side = config.resolution - config.margin
        if not self.training:
            begin = config.margin // 2
            return planes[..., begin : begin + side, begin : begin + side]
        if config.swapped:
            other = torch.stack([planes[:, 0].transpose(-1, -2), planes[:, 2], planes[:, 1]], 1)
            chosen = torch.rand(len(planes), 1, 1, 1, 1, device=planes.device) < 0.5
            planes = torch.where(chosen, other, planes)
        signs = torch.randint(2, (len(planes), 1, config.channels, 1, 1), device=planes.device) * 2 - 1
        # A place of its own for each axis of space, so that the three planes stay those of one solid.
        starts = torch.randint(config.margin + 1, (len(planes), 3), device=planes.device)
        cells = starts[..., None] + torch.arange(side, device=planes.device)  # [n, axis, side]
        for axis, letter in enumerate("xyz"):
            if letter in config.mirrored:
                turned = torch.rand(len(planes), device=planes.device) < 0.5
                cells[turned, axis] = config.resolution - 1 - cells[turned, axis]
        return _cut(planes, cells) * signs


class _Asking(nn.Module):
    """A layer in which each point looks at the tokens of its field, and at no other point."""

    def __init__(self, config: ProcessorConfig) -> None:
        super().__init__()
        width = config.width
        self.before = nn.LayerNorm(width)
        self.look = nn.MultiheadAttention(width, config.attention_heads, config.dropout, batch_first=True)
        self.think = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, asked: Tensor, tokens: Tensor) -> Tensor:
        asked = asked + self.look(self.before(asked), tokens, tokens, need_weights=False)[0]
        return asked + self.think(asked)


def _cut(planes: Tensor, cells: Tensor) -> Tensor:
    """Of each plane the given columns and rows: cells int64 `[n, axis, side]`."""
    found = []
    for index, pair in enumerate(ORDER.split("-")):
        columns, rows = (cells[:, "xyz".index(letter)] for letter in pair)
        plane = planes[:, index]
        plane = torch.take_along_dim(plane, columns[:, None, None, :], -1)
        found.append(torch.take_along_dim(plane, rows[:, None, :, None], -2))
    return torch.stack(found, 1)


def _convolutions(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, 48, 3, 1, 1), nn.BatchNorm2d(48), nn.ReLU(),
        nn.Conv2d(48, 96, 3, 2, 1), nn.BatchNorm2d(96), nn.ReLU(),
        nn.Conv2d(96, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def _dense(read: int, width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(read), nn.Linear(read, 2 * width), nn.ReLU(), nn.Dropout(dropout),
        nn.Linear(2 * width, width), nn.ReLU(),
    )  # fmt: skip
