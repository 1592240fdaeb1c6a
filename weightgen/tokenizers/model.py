"""The networks inside the WeightTokenizer: a fixed projection, a residual quantiser, and a decoder for each task.

Notation: x `[networks, tokens, chunk]` normalised weights, z `[networks, tokens, code_width]` latents,
k `[networks, tokens, levels]` codes.

The way from x to k is fitted once and then fixed: principal directions, and a quantiser of what is left of unit size.
With an encoder that was trained together with the decoder, codes came to say nothing and one network was decoded from
all of them: what is decoded works best when it is always the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

FITTING_ROUNDS = 30
"""Passes in which the codebooks follow the latents after k-means has placed them."""
FITTING_LATENTS = 2_048
"""Latents of a pass."""


@dataclass(frozen=True)
class CodecConfig:
    """Sizes of the codec.

    Args:
        chunk: values a token.
        code_width: width of a quantised latent.
        levels: residual levels of the quantiser.
        codebook: codes a level.
        hidden: width of the decoder between all codes of a network and all its values.
    """

    chunk: int = 80
    code_width: int = 16
    levels: int = 4
    codebook: int = 128
    hidden: int = 72

    def __post_init__(self) -> None:
        if not 1 <= self.code_width <= self.chunk:
            raise ValueError(f"code_width {self.code_width} is not within 1 and chunk {self.chunk}")
        if min(self.levels, self.codebook, self.hidden) < 1:
            raise ValueError("levels, codebook and hidden are at least 1")


class Decoder(nn.Module):
    """All latents of a network → all its values, for one task: two linear maps with a norm between them.

    Every value sees every code. A transformer over the tokens in its place learned a tenth as fast, and deeper
    decoders were no better than this one.

    Args:
        mask: bool `[tokens, chunk]`, true where a token holds a value.
    """

    def __init__(self, config: CodecConfig, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("places", mask.flatten().nonzero().squeeze(1), persistent=False)
        self.tokens, self.chunk = mask.shape
        self.read = nn.Linear(self.tokens * config.code_width, config.hidden)
        self.norm = nn.LayerNorm(config.hidden)
        self.write = nn.Linear(config.hidden, len(self.places))
        # Small, so that training begins near the aligned mean of the training networks.
        nn.init.normal_(self.write.weight, std=0.02)
        nn.init.zeros_(self.write.bias)

    def forward(self, latents: Tensor) -> Tensor:
        """z → normalised weights `[networks, tokens, chunk]`, zeros in the padding."""
        values = self.write(self.norm(self.read(latents.flatten(1))))
        whole = values.new_zeros(len(values), self.tokens * self.chunk)
        return whole.index_copy(1, self.places, values).view(len(values), self.tokens, self.chunk)


class Codec(nn.Module):
    """Projection → residual quantiser → one decoder a task, over the tokens of one architecture.

    Args:
        mask: bool `[tokens, chunk]`, true where a token holds a value.
        tasks: the tasks it decodes for.
    """

    mean: Tensor  # [chunk]
    directions: Tensor  # [chunk, code_width]

    def __init__(self, config: CodecConfig, mask: Tensor, tasks: Sequence[str]) -> None:
        super().__init__()
        from vector_quantize_pytorch import ResidualVQ

        self.config, self.tasks = config, list(tasks)
        self.register_buffer("mean", torch.zeros(config.chunk))
        self.register_buffer("directions", torch.eye(config.chunk)[:, : config.code_width].clone())
        self.quantiser = ResidualVQ(
            dim=config.code_width,
            num_quantizers=config.levels,
            codebook_size=config.codebook,
            kmeans_init=True,
            decay=0.98,
            threshold_ema_dead_code=1,
        )
        self.decoders = nn.ModuleList(Decoder(config, mask) for _ in self.tasks)

    @torch.no_grad()
    def fit(self, values: Tensor) -> None:
        """Fits projection and codebooks to the tokens of the training networks, x of all tasks together.

        Randomness comes from torch's global generator.
        """
        flat = values.flatten(0, 1).double()
        centred = flat - flat.mean(0)
        variance, vectors = torch.linalg.eigh(centred.mT @ centred / len(flat))
        # Each direction in units of its deviation; one that no network uses stays at zero.
        kept = variance.flip(0)[: self.config.code_width].clamp_min(0)
        scale = torch.where(kept > 1e-8 * kept[0], kept.clamp_min(1e-30).rsqrt(), torch.zeros_like(kept))
        self.mean.copy_(flat.mean(0))
        self.directions.copy_(vectors.flip(1)[:, : self.config.code_width] * scale)
        latents = self.latents(values).flatten(0, 1)
        self.quantiser.train()
        for _ in range(FITTING_ROUNDS):
            self.quantiser(latents[torch.randperm(len(latents))[:FITTING_LATENTS]][None])
        self.quantiser.eval()

    def latents(self, values: Tensor) -> Tensor:
        """x → z of unit size: a code says which way a token differs, the decoder how far that leads."""
        latents = (values - self.mean) @ self.directions
        return nn.functional.layer_norm(latents, latents.shape[-1:])

    def decoder(self, task: str) -> Decoder:
        """The decoder for a task."""
        return self.decoders[self.tasks.index(task)]

    @torch.no_grad()
    def encode(self, values: Tensor) -> Tensor:
        """x → codes int64 `[networks, tokens, levels]`."""
        return self.quantiser(self.latents(values))[1]

    def decode(self, codes: Tensor, task: str) -> Tensor:
        """codes, all of one task → normalised weights `[networks, tokens, chunk]`."""
        return self.decoder(task)(self.quantiser.get_output_from_indices(codes))
