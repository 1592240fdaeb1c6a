"""Recalibration: the statistics of batch norms computed anew, for a network whose weights were changed after training.

Quantised, pruned and generated weights shift what a norm sees, and statistics of the old weights then cost more
accuracy than the change itself (https://arxiv.org/abs/2211.08403). Labels are not needed, and test images must not be
used.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from weightgen.errors import MissingDataError

BATCH = 250


def has_statistics(module: nn.Module) -> bool:
    """Whether a network has norms that keep statistics of what they have seen."""
    return any(_tracks(part) for part in module.modules())


@torch.no_grad()
def recalibrate(
    module: nn.Module, images: Tensor, *, original: nn.Module | None = None, batch: int = BATCH
) -> list[str]:
    """Sets mean and variance of every batch norm to their averages over the images; nothing else changes.

    All batches weigh the same, so that a last one that is not full is left out unless it is the only one.
    `num_batches_tracked` becomes the number of batches. Same module and images, same result.

    Args:
        module: changed in place; the mode (training or evaluation) of each part is left as it was.
        images: training images `[n, …]` as the module takes them.
        original: the network before its weights were changed, which is left as it is. With it the norms get the
            original's own statistics, moved by what the change does to those of these images: so few images are
            enough, and what the original was trained on is not forgotten.
        batch: images of a batch.

    Returns:
        The names of the norms, none if the network has no batch norm with running statistics.

    Raises:
        MissingDataError: if there is no image.
    """
    if not len(images):
        raise MissingDataError(
            "no images to recalibrate with", got="0", expected="training images of the network's task"
        )
    norms = {name: part for name, part in module.named_modules() if _tracks(part)}
    if not norms:
        return []
    if original is not None:
        return _moved(norms, module, images, original, batch)
    modes = {part: part.training for part in module.modules()}
    momenta = {norm: norm.momentum for norm in norms.values()}
    # Only the norms: dropout must not add its noise to what they see.
    module.eval()
    try:
        for norm in norms.values():
            norm.reset_running_stats()
            norm.momentum = None  # a cumulative average
            norm.training = True
        parts = images.split(batch)
        for part in parts[:-1] if len(parts) > 1 and len(parts[-1]) < batch else parts:
            module(part)
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum
        for part, mode in modes.items():
            part.training = mode
    return list(norms)


def _moved(
    norms: dict[str, nn.Module], module: nn.Module, images: Tensor, original: nn.Module, batch: int
) -> list[str]:
    """Statistics of the original, moved as far as those of the images move from one network to the other."""
    seen = copy.deepcopy(original)
    recalibrate(seen, images, batch=batch)
    recalibrate(module, images, batch=batch)
    for name, norm in norms.items():
        before, anew = original.get_submodule(name), seen.get_submodule(name)
        norm.running_mean += before.running_mean - anew.running_mean
        norm.running_var *= before.running_var / anew.running_var.clamp_min(norm.eps)
        norm.num_batches_tracked.copy_(before.num_batches_tracked)
    return list(norms)


def _tracks(part: nn.Module) -> bool:
    return isinstance(part, _BatchNorm) and part.track_running_stats and part.running_mean is not None
