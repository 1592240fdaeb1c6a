"""The quantiser of the general tokenizer: one of vector-quantize-pytorch, and the search for the best codes in it.

Notation: x `[tokens, chunk]` values of unit size, k `[tokens, levels]` codes. `residual` is a residual quantiser
(https://arxiv.org/abs/2107.03312), `grouped` several of them side by side on parts of the chunk
(https://arxiv.org/abs/2305.02765), `scalar` finite scalar quantisation (https://arxiv.org/abs/2309.15505).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from weightgen.errors import CorruptFileError, RecipeError
from weightgen.registry import unknown_name

KINDS = ("residual", "grouped", "scalar")
LARGE = 2**16
"""Tokens from which a search keeps one way unless it is told otherwise, so that it takes seconds."""
TOGETHER = 2_048
"""Tokens whose distances to all codes are held in memory at once."""


@dataclass(frozen=True)
class QuantiserConfig:
    """Sizes of the quantiser.

    Args:
        kind: one of `KINDS`.
        chunk: values a token.
        levels: residual levels, of each group.
        codebook: codes a level; of a scalar quantiser steps of each value.
        groups: parts of a chunk that have codebooks of their own; 1 unless grouped.
        beam: how many ways the search for codes keeps at each level.
    """

    kind: str = "residual"
    chunk: int = 8
    levels: int = 3
    codebook: int = 812
    groups: int = 1
    beam: int = 8

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown_name("quantiser", self.kind, KINDS)
        if min(self.chunk, self.levels, self.groups, self.beam) < 1 or self.codebook < 2:
            raise RecipeError(
                "a quantiser of no size",
                got=self,
                expected="chunk, levels, groups, beam at least 1, codebook at least 2",
            )
        if self.chunk % self.groups or (self.kind != "grouped" and self.groups > 1):
            raise RecipeError(
                "groups that do not fit", got=f"{self.groups} groups of a chunk of {self.chunk}, {self.kind}",
                expected="a grouped quantiser, and groups that divide the chunk",
            )  # fmt: skip
        if self.kind == "scalar" and (self.levels > 1 or self.codebook**self.chunk >= 2**31):
            raise RecipeError(
                "a scalar quantiser whose steps are no one code",
                got=f"{self.codebook}^{self.chunk}, {self.levels} levels",
                expected="codebook to the power of chunk below 2^31, and 1 level", remedy="take a shorter chunk",
            )  # fmt: skip

    @property
    def columns(self) -> int:
        """Codes a token."""
        return self.groups * self.levels

    @property
    def entries(self) -> int:
        """How many codes there are in each column."""
        return self.codebook**self.chunk if self.kind == "scalar" else self.codebook

    @property
    def bits(self) -> int:
        """Bits of one token, its codes packed as the digits of one number."""
        return math.ceil(self.columns * math.log2(self.entries))


class Quantiser(nn.Module):
    """Values ↔ codes, with one codebook for all networks."""

    reach: Tensor  # []

    def __init__(self, config: QuantiserConfig) -> None:
        super().__init__()
        import vector_quantize_pytorch as library

        self.config = config
        self.register_buffer("reach", torch.tensor(3.0))
        if config.kind == "scalar":
            self.inner: nn.Module = library.FSQ(
                levels=[config.codebook] * config.chunk, preserve_symmetry=True, bound_hard_clamp=True
            )
        else:
            self.inner = library.GroupedResidualVQ(
                dim=config.chunk, groups=config.groups, num_quantizers=config.levels, codebook_size=config.codebook,
                kmeans_init=True, decay=0.95, threshold_ema_dead_code=1, rotation_trick=False,
            )  # fmt: skip

    def learn(self, values: Tensor) -> None:
        """One step: codebooks move towards the values they stand for, and dead codes are drawn anew from them."""
        if self.config.kind == "scalar":
            # The steps lie evenly within a reach, the best of a few for these values.
            tried = torch.arange(1.5, 6.1, 0.25)
            errors = torch.stack([(self._scalar(values, reach) - values).square().mean() for reach in tried])
            self.reach.copy_(tried[errors.argmin()])
        else:
            self.inner.train()
            self.inner(values[None])
            self.inner.eval()

    @torch.no_grad()
    def refine(self, values: Tensor) -> None:
        """One round: codes by search, then all levels of the codebooks together by least squares; see `refined`."""
        if self.config.kind == "scalar":
            return
        codes, books = self.encode(values).split(self.config.levels, 1), self.codebooks()
        parts = zip(values.chunk(self.config.groups, 1), codes, books, strict=True)
        self.place(torch.stack([refined(*part) for part in parts]))

    def place(self, codebooks: Tensor) -> None:
        """Sets the codebooks, `[groups, levels, codebook, chunk / groups]`."""
        for group, books in zip(self.inner.rvqs, codebooks, strict=True):
            for layer, book in zip(group.layers, books, strict=True):
                layer._codebook.embed.data.copy_(book[None])
                layer._codebook.initted.fill_(True)

    @torch.no_grad()
    def encode(self, values: Tensor, beam: int | None = None) -> Tensor:
        """x → k, int64 `[tokens, levels]`; the same values give the same codes."""
        if self.config.kind == "scalar":
            return self.inner((values / self.reach)[None])[1][0].long()[:, None]
        beam = beam or (self.config.beam if len(values) < LARGE else 1)
        found = [torch.zeros(0, self.config.columns, dtype=torch.int64)]
        for part in values.split(TOGETHER):
            groups = zip(part.chunk(self.config.groups, 1), self.codebooks(), strict=True)
            found.append(torch.cat([search(one, books, beam) for one, books in groups], 1))
        return torch.cat(found)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """k → x.

        Raises:
            CorruptFileError: for codes of another shape, or outside the codebook.
        """
        expected = f"integers of shape [tokens, {self.config.columns}], 0 to {self.config.entries - 1}"
        if codes.dim() != 2 or codes.shape[1] != self.config.columns or codes.is_floating_point():
            raise CorruptFileError("codes of another shape", got=tuple(codes.shape), expected=expected)
        if codes.numel() and (codes.min() < 0 or codes.max() >= self.config.entries):
            token, level = ((codes < 0) | (codes >= self.config.entries)).nonzero()[0].tolist()
            raise CorruptFileError(
                "a code outside the codebook",
                where=f"token {token}, level {level}", got=int(codes[token, level]), expected=expected,
            )  # fmt: skip
        if self.config.kind == "scalar":
            return self.inner.indices_to_codes(codes[None, :, 0])[0].float() * self.reach
        groups = zip(codes.split(self.config.levels, 1), self.codebooks(), strict=True)
        levels = torch.arange(self.config.levels)
        return torch.cat([books[levels, part].sum(1) for part, books in groups], 1)

    def codebooks(self) -> Tensor:
        """`[groups, levels, codebook, chunk / groups]`, of a quantiser that has any."""
        return self.inner.codebooks.detach()

    def _scalar(self, values: Tensor, reach: Tensor) -> Tensor:
        return self.inner((values / reach)[None])[0][0] * reach


def search(values: Tensor, codebooks: Tensor, beam: int) -> Tensor:
    """The codes whose entries sum up nearest to each value, by beam search; int64 `[values, levels]`.

    The library's own beam search ranks by the errors of all levels together; only the last one is what is lost.

    Args:
        values: `[values, width]`.
        codebooks: `[levels, entries, width]`.
        beam: ways kept at each level; with 1 each level takes its nearest.
    """
    rest, codes = values[:, None], torch.zeros(len(values), 1, 0, dtype=torch.int64)
    entries = codebooks.shape[1]
    for level, book in enumerate(codebooks):
        last = level == len(codebooks) - 1
        # Of each way only its best codes can be among the best of all.
        nearest = 1 if last else min(beam, entries)
        kept = 1 if last else min(beam, rest.shape[1] * nearest)
        distance = book.square().sum(1) - 2 * rest @ book.T + rest.square().sum(2, keepdim=True)
        # Several times faster than `topk` of one.
        near, index = distance.min(2, keepdim=True) if nearest == 1 else distance.topk(nearest, dim=2, largest=False)
        _, chosen = near.flatten(1).topk(kept, dim=1, largest=False)
        way, code = chosen // nearest, index.flatten(1).gather(1, chosen)
        rest = rest.gather(1, way[..., None].expand(-1, -1, rest.shape[2])) - book[code]
        codes = torch.cat([codes.gather(1, way[..., None].expand(-1, -1, level)), code[..., None]], 2)
    return codes[:, 0]


def health(codes: Tensor, entries: int) -> list[dict[str, float]]:
    """How well each column of codes `[tokens, levels]` is used: its perplexity, and the share that is never used."""
    found = []
    for column in codes.T:
        used, counts = column.unique(return_counts=True)
        share = counts.double() / max(len(column), 1)
        perplexity = (-(share * share.log()).sum()).exp().item()
        found.append({"perplexity": round(perplexity, 1), "dead": round(1 - len(used) / entries, 4)})
    return found


def refined(values: Tensor, codes: Tensor, codebooks: Tensor) -> Tensor:
    """The codebooks that come nearest to the values under these codes, by least squares over all levels together.

    A residual quantiser learns each level on what the ones before leave; here all give way to one another
    (https://arxiv.org/abs/1411.2173). An entry that no value uses stays near where it was.

    Args:
        values: `[values, width]`.
        codes: int64 `[values, levels]`.
        codebooks: `[levels, entries, width]`.
    """
    levels, entries, width = codebooks.shape
    places = codes + entries * torch.arange(levels)
    size = levels * entries
    together = torch.zeros(size * size, dtype=torch.float64)
    pairs = (places[:, :, None] * size + places[:, None]).flatten()
    together.index_add_(0, pairs, torch.ones(len(pairs), dtype=torch.float64))
    rest = values - codebooks[torch.arange(levels), codes].sum(1)
    sums = torch.zeros(size, width, dtype=torch.float64)
    sums.index_add_(0, places.flatten(), rest.double().repeat_interleave(levels, 0))
    # Weighed with the old place, so that what is rarely used does not run away.
    system = together.view(size, size) + torch.eye(size, dtype=torch.float64)
    change = torch.linalg.solve(system, sums)
    return codebooks + change.view(levels, entries, width).to(codebooks.dtype)
