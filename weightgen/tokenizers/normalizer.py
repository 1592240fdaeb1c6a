"""Normalizer: the saved frame in which all networks of one architecture are seen.

It holds a reference network for each task, to which networks are aligned, and a scale for each tensor. Tokens are what
a network differs from its task's reference by, in units of the scales.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from weightgen.architecture import Architecture
from weightgen.registry import unknown_name
from weightgen.structure import Aligner
from weightgen.tokenizers.layout import Layout, layout_of

Tensors = Mapping[str, Tensor]
ROUNDS = 3
"""How often the mean of the aligned networks becomes the next reference."""


@dataclass(frozen=True)
class Normalizer:
    """Between tensors `[networks, …]` and normalised tokens `[networks, tokens, chunk]` of one architecture.

    Args:
        architecture: the recipe; those with the same shapes and activation share a Normalizer (`frame_key`).
        chunk: values a token.
        references: task → name → tensor.
        scales: standard deviation of each tensor's values over the training networks, `[tensors]`.
    """

    architecture: Architecture
    chunk: int
    references: Mapping[str, Tensors]
    scales: Tensor

    @classmethod
    def fit(cls, architecture: Architecture, chunk: int, networks: Mapping[str, Tensors]) -> "Normalizer":
        """From the training networks of each task, tensors `[networks, …]`.

        The reference of the first task is the mean of its networks, aligned to the first of them and then to their own
        mean; those of other tasks start from it, so that the tasks share an order as far as they can.
        """
        references: dict[str, Tensors] = {}
        deviations = []
        for task, tensors in networks.items():
            plain = aligner(architecture)
            canonical = plain.canonicalise(tensors)
            first = next(iter(references.values()), {name: tensor[0] for name, tensor in canonical.items()})
            for _ in range(ROUNDS):
                aligned = aligner(architecture, first).match(canonical)
                first = {name: tensor.mean(0) for name, tensor in aligned.items()}
            references[task] = first
            deviations.append(torch.stack([tensor.std() for tensor in aligned.values()]))
        scales = torch.stack(deviations).square().mean(0).sqrt()
        # A tensor that is the same in all networks, or a lone value, has no scale of its own.
        return cls(architecture, chunk, references, torch.where(scales > 0, scales, torch.ones_like(scales)))

    @property
    def layout(self) -> Layout:
        return layout_of(self.architecture, self.chunk)

    def align(self, tensors: Tensors, task: str) -> dict[str, Tensor]:
        """The same functions in the order and scale of the task's reference.

        Raises:
            UnknownNameError: if no network of the task was seen.
        """
        if task not in self.references:
            raise unknown_name(f"task of {self.architecture}", task, self.references)
        return aligner(self.architecture, self.references[task]).align(tensors)

    def normalise(self, aligned: Tensors, task: str) -> Tensor:
        """Aligned tensors `[networks, …]` → tokens `[networks, tokens, chunk]`."""
        reference = self._reference_tokens[task]
        return self.layout.gather(aligned, dtype=torch.float32, reference=reference, scales=self.scales)

    def denormalise(self, tokens: Tensor, task: str) -> dict[str, Tensor]:
        """The inverse of `normalise`; differentiable."""
        return self.layout.scatter(tokens, reference=self._reference_tokens[task], scales=self.scales)

    @functools.cached_property
    def _reference_tokens(self) -> dict[str, Tensor]:
        """The reference of each task where its values lie in the token matrix, `[tokens, chunk]`."""
        return {
            task: self.layout.gather({name: tensor[None] for name, tensor in reference.items()})[0]
            for task, reference in self.references.items()
        }


def frame_key(architecture: Architecture) -> str:
    """What networks that share a Normalizer have in common: all shapes, and the activation with its symmetries."""
    return f"{architecture.signature}-{architecture.option('activation')}"


def aligner(architecture: Architecture, reference: Tensors | None = None) -> Aligner:
    """An Aligner for networks of an architecture."""
    return Aligner(architecture.groups(), reference=reference)
