"""Recalibration: the running statistics of batch norms measured anew, after weights were changed."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

BATCH = 256


def has_statistics(module: nn.Module) -> bool:
    """Whether a network has norms that keep statistics of what they have seen."""
    return any(isinstance(part, _BatchNorm) and part.track_running_stats for part in module.modules())


@torch.no_grad()
def recalibrate(module: nn.Module, images: Tensor) -> None:
    """Sets the statistics of all batch norms to those of these images, in place; weights stay.

    The network runs once over the images, in batches that count equally. All else, dropout too, is as in evaluation.

    Args:
        module: left in evaluation mode.
        images: `[n, …]`, of training data.
    """
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    if not norms or not len(images):
        return
    module.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        # None stands for the mean over all batches.
        norm.momentum = None
        norm.train()
    batches = max(1, len(images) // BATCH)
    for batch in images.tensor_split(batches):
        module(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    module.eval()
