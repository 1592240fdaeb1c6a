"""Changes of a task's images by a degree: what a network that is told the degree can be conditioned on."""

import dataclasses
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from weightgen.registry import unknown_name
from weightgen.tasks.task import Arrays, Task

Change = Callable[[Tensor, float], Tensor]
"""(images `[n, channels, height, width]`, degree) → images of the same shape."""


def rotated(images: Tensor, degrees: float) -> Tensor:
    """Images turned about their middle, bilinearly; what comes in from outside is of the darkest or emptiest value."""
    angle = math.radians(degrees)
    turn = [[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0]]
    count, channels, height, width = images.shape
    # One grid serves all images when they stand as channels of one.
    grid = nn.functional.affine_grid(torch.tensor([turn]), [1, 1, height, width], align_corners=False)
    ground = _ground(images)
    found = nn.functional.grid_sample((images - ground).flatten(0, 1)[None], grid, align_corners=False)
    return found[0].unflatten(0, (count, channels)) + ground


def blurred(images: Tensor, deviation: float) -> Tensor:
    """Images under a Gaussian of a deviation in pixels; beyond the border they go on with their last values."""
    if deviation <= 0:
        return images
    reach = max(1, math.ceil(3 * deviation))
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / deviation) ** 2)
    kernel = (weights / weights.sum()).view(1, 1, -1)
    flat = nn.functional.pad(images.flatten(0, 1)[:, None], (reach,) * 4, mode="replicate")
    across = nn.functional.conv2d(flat, kernel[..., None, :])
    return nn.functional.conv2d(across, kernel[..., None]).view(images.shape)


def _ground(images: Tensor) -> Tensor:
    """The value of the corner pixels, which show the paper."""
    return images[..., 0, 0].median()


def changed_task(task: Task, degrees: Mapping[str, float]) -> Task:
    """The Task with all its images changed, in the order given, and rounded to pixels: it has another digest.

    Raises:
        UnknownNameError: for a change that there is not.
    """
    for name in degrees:
        if name not in CHANGES:
            raise unknown_name("change of images", name, CHANGES)

    def load() -> Arrays:
        found: Arrays = {}
        for split, (images, labels) in task.arrays.items():
            pixels = torch.tensor(images, dtype=torch.float32)
            for name, degree in degrees.items():
                pixels = CHANGES[name](pixels, degree)
            found[split] = pixels.round().clamp(0, 255).to(torch.uint8).numpy(), labels
        return found

    told = " ".join(f"{name}={degree:.6g}" for name, degree in degrees.items())
    return dataclasses.replace(task, name=f"{task.name} {told}", load=load)


CHANGES: dict[str, Change] = {"blur": blurred, "rotation": rotated}
"""Name of the condition → change: `blur` in pixels, `rotation` in degrees."""
