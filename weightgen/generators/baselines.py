"""The trivial generators that every method must be compared with; each takes aligned networks and gives new ones.

All take tensors `[networks, …]` aligned to one reference, how many networks to make, and a seeded torch.Generator.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from weightgen.registry import Registry

Tensors = Mapping[str, Tensor]
Baseline = Callable[[Tensors, int, torch.Generator], dict[str, Tensor]]

baselines: Registry[Baseline] = Registry("baseline")


def _count(tensors: Tensors) -> int:
    return len(next(iter(tensors.values())))


def _pick(tensors: Tensors, count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(_count(tensors), (count,), generator=generator)


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype)


@baselines.register("nearest checkpoint")
def checkpoint(tensors: Tensors, count: int, generator: torch.Generator) -> dict[str, Tensor]:
    """A training network as it is."""
    chosen = _pick(tensors, count, generator)
    return {name: tensor[chosen] for name, tensor in tensors.items()}


def noisy(share: float) -> Baseline:
    """A training network with Gaussian noise of `share` × the deviation of each weight over the zoo."""

    def sample(tensors: Tensors, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        chosen = _pick(tensors, count, generator)
        return {
            name: tensor[chosen] + share * tensor.std(0) * _noise(tensor[chosen], generator)
            for name, tensor in tensors.items()
        }

    return sample


def interpolated(share: float) -> Baseline:
    """`share` of the way from one training network to another."""

    def sample(tensors: Tensors, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        first, second = _pick(tensors, count, generator), _pick(tensors, count, generator)
        return {name: tensor[first].lerp(tensor[second], share) for name, tensor in tensors.items()}

    return sample


def soup(size: int) -> Baseline:
    """The mean of `size` training networks."""

    def sample(tensors: Tensors, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        total = _count(tensors)
        chosen = torch.rand(count, total, generator=generator).argsort(1)[:, : min(size, total)]
        return {name: tensor[chosen].mean(1) for name, tensor in tensors.items()}

    return sample


@baselines.register("per-weight Gaussian")
def gaussian(tensors: Tensors, count: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Every weight by itself, from a Gaussian of its mean and deviation over the zoo."""
    return {
        name: tensor.mean(0) + tensor.std(0) * _noise(tensor[:1].expand(count, *tensor.shape[1:]), generator)
        for name, tensor in tensors.items()
    }


@baselines.register("latent KDE")
def latent_density(tensors: Tensors, count: int, generator: torch.Generator) -> dict[str, Tensor]:
    """A kernel density over the principal components of the aligned networks, bandwidth by Scott's rule.

    Each sample draws its own anchor: with one shared by all components a "sample" is a training network and noise.
    """
    names, sizes = list(tensors), [tensor[0].numel() for tensor in tensors.values()]
    flat = torch.cat([tensor.flatten(1) for tensor in tensors.values()], dim=1)
    mean = flat.mean(0)
    left, singular, right = torch.linalg.svd(flat - mean, full_matrices=False)
    latents = left * singular
    bandwidth = len(flat) ** (-1 / (1 + 4)) * latents.std(0)
    anchors = torch.randint(len(flat), (count, latents.shape[1]), generator=generator)
    drawn = latents.gather(0, anchors) + bandwidth * torch.randn(count, latents.shape[1], generator=generator)
    parts = (mean + drawn @ right).split(sizes, dim=1)
    return {name: part.view(count, *tensors[name].shape[1:]) for name, part in zip(names, parts, strict=True)}


for _share in (0.1, 0.2, 0.3, 0.5):
    baselines.add(f"checkpoint + noise {_share}", noisy(_share))
for _share in (0.2, 0.5):
    baselines.add(f"interpolation {_share}", interpolated(_share))
for _size in (2, 16):
    baselines.add(f"soup of {_size}", soup(_size))
