"""The networks inside the WeightTokenizer: encoder, residual quantiser and contextual decoder.

Notation: x `[networks, tokens, chunk]` normalised weights, c `[tokens, coordinates]` structural coordinates,
z `[networks, tokens, code_width]` latents, k `[networks, tokens, levels]` codes.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from weightgen.tokenizers.layout import COORDINATES


@dataclass(frozen=True)
class CodecConfig:
    """Sizes of the codec.

    Args:
        chunk: values a token.
        width: width of both transformers.
        heads: attention heads.
        encoder_layers: transformer layers before the quantiser.
        decoder_layers: transformer layers after it.
        code_width: width of a quantised latent.
        levels: residual levels of the quantiser.
        codebook: codes a level.
        tasks: how many tasks there are to tell apart.
    """

    chunk: int = 80
    width: int = 112
    heads: int = 4
    encoder_layers: int = 1
    decoder_layers: int = 3
    code_width: int = 16
    levels: int = 4
    codebook: int = 128
    tasks: int = 1

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")


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


def transformer(width: int, heads: int, layers: int) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(
        width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)


class Codec(nn.Module):
    """Encoder → residual quantiser → contextual decoder over the tokens of one architecture."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        from vector_quantize_pytorch import ResidualVQ

        self.config = config
        self.structure = StructureEmbedding(config.width)
        self.read = nn.Linear(config.chunk, config.width)
        self.encoder = transformer(config.width, config.heads, config.encoder_layers)
        self.to_code = nn.Linear(config.width, config.code_width)
        self.quantiser = ResidualVQ(
            dim=config.code_width,
            num_quantizers=config.levels,
            codebook_size=config.codebook,
            kmeans_init=True,
            decay=0.98,
            threshold_ema_dead_code=1,
            rotation_trick=True,
        )
        self.from_code = nn.Linear(config.code_width, config.width)
        self.decoder = transformer(config.width, config.heads, config.decoder_layers)
        self.write = nn.Linear(config.width, config.chunk)
        self.task = nn.Embedding(config.tasks, config.width)

    def latents(self, values: Tensor) -> Tensor:
        """x → z of unit size. Places are not told here: a code says what a network differs by, not where it stands."""
        latents = self.to_code(self.encoder(self.read(values)))
        # A quantiser lets free latents shrink until the codes say nothing.
        return nn.functional.layer_norm(latents, latents.shape[-1:])

    def decode_latents(self, latents: Tensor, coordinates: Tensor, task: Tensor) -> Tensor:
        """z → normalised weights.

        Args:
            latents: `[networks, tokens, code_width]`.
            coordinates: `[tokens, coordinates]`.
            task: int64 `[networks]`.

        Returns:
            `[networks, tokens, chunk]`.
        """
        told = self.structure(coordinates) + self.task(task)[:, None]
        return self.write(self.decoder(self.from_code(latents) + told))

    def encode(self, values: Tensor) -> Tensor:
        """x → codes int64 `[networks, tokens, levels]`."""
        return self.quantiser(self.latents(values))[1]

    def decode(self, codes: Tensor, coordinates: Tensor, task: Tensor) -> Tensor:
        """codes → normalised weights `[networks, tokens, chunk]`."""
        return self.decode_latents(self.quantiser.get_output_from_indices(codes), coordinates, task)
