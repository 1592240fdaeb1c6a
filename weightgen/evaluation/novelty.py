"""Is a generated network new? Distance to what is known, overlap of errors, share of copied tokens.

A network is new when, with permutation and scale removed, it is as far from every training network, and from every
sample drawn before it, as independent training runs are from one another, and when it does not make the same errors.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from weightgen.architecture import Architecture
from weightgen.structure import aligned_distances

Tensors = Mapping[str, Tensor]
ACCURACY_MARGIN = 0.01
DISTANCE_BAR = 0.95


@dataclass(frozen=True)
class Reference:
    """The networks that novelty is measured against: the training networks of one task and architecture.

    Args:
        architecture: their recipe.
        tensors: `[networks, …]`.
        errors: bool `[networks, examples]`, which test examples each gets wrong.
        spacing: the median distance of a network to the nearest other.
        largest_overlap: the largest overlap of errors of a network with the nearest other.
        accuracy: their mean.
    """

    architecture: Architecture
    tensors: Tensors
    errors: Tensor
    spacing: float
    largest_overlap: float
    accuracy: float

    @classmethod
    def of(cls, architecture: Architecture, tensors: Tensors, errors: Tensor) -> "Reference":
        distances = _distances(architecture, tensors, tensors)
        overlaps = error_overlap(errors, errors)
        return cls(
            architecture, tensors, errors,
            distances.fill_diagonal_(float("inf")).min(1).values.median().item(),
            overlaps.fill_diagonal_(0).max().item(),
            1 - errors.double().mean().item(),
        )  # fmt: skip


@dataclass(frozen=True)
class Novelty:
    """One figure a sample, all `[samples]`.

    Args:
        distance_ratio: distance to the nearest training network or earlier sample, over the zoo's own spacing.
        zoo_ratio: the same to training networks only.
        sample_ratio: the same to all other samples, earlier or later; infinite for a lone sample.
        error_iou: largest overlap of errors with a training network or an earlier sample.
        accuracy: share of test examples that are right.
        novel_and_performant: accuracy within a point of the zoo's mean, ratio ≥ 0.95, overlap within the zoo's own.
    """

    distance_ratio: Tensor
    zoo_ratio: Tensor
    sample_ratio: Tensor
    error_iou: Tensor
    accuracy: Tensor
    novel_and_performant: Tensor


def error_overlap(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of the sets of wrong examples: bool `[a, examples]`, `[b, examples]` → `[a, b]` in 0…1.

    Two networks without an error overlap fully.
    """
    left, right = first.double(), second.double()
    both = left @ right.T
    either = left.sum(1)[:, None] + right.sum(1)[None] - both
    return torch.where(either > 0, both / either.clamp_min(1), torch.ones_like(both))


def measure_novelty(reference: Reference, samples: Tensors, errors: Tensor) -> Novelty:
    """How new each sample is.

    Args:
        samples: tensors `[samples, …]` in the order in which they were drawn.
        errors: bool `[samples, examples]`, on the examples of `reference.errors`.
    """
    count = len(errors)
    to_zoo = _distances(reference.architecture, samples, reference.tensors) / reference.spacing
    among = _distances(reference.architecture, samples, samples) / reference.spacing
    overlap_among = error_overlap(errors, errors)
    earlier = torch.ones(count, count).tril(-1).bool()
    self_pair = torch.eye(count).bool()
    zoo_ratio = to_zoo.min(1).values
    distance_ratio = torch.minimum(zoo_ratio, among.masked_fill(~earlier, float("inf")).min(1).values)
    error_iou = torch.maximum(
        error_overlap(errors, reference.errors).max(1).values, overlap_among.masked_fill(~earlier, 0).max(1).values
    )
    accuracy = 1 - errors.double().mean(1)
    return Novelty(
        distance_ratio=distance_ratio,
        zoo_ratio=zoo_ratio,
        sample_ratio=among.masked_fill(self_pair, float("inf")).min(1).values,
        error_iou=error_iou,
        accuracy=accuracy,
        novel_and_performant=(accuracy >= reference.accuracy - ACCURACY_MARGIN)
        & (distance_ratio >= DISTANCE_BAR)
        & (error_iou <= reference.largest_overlap),
    )


def token_replay(codes: Tensor, training: Tensor) -> Tensor:
    """Largest share of tokens in which a sample equals one training network: codes `[a, tokens, levels]` → `[a]`."""
    return torch.stack([(sample[None] == training).all(2).double().mean(1).max() for sample in codes])


def _distances(architecture: Architecture, first: Tensors, second: Tensors) -> Tensor:
    return aligned_distances(first, second, architecture.groups())
