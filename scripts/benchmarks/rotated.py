"""The task of the hypernetwork benchmarks: MNIST turned by an angle that the network is told, one angle a step."""

import math

import torch
from torch import Tensor, nn

from weightgen.tasks import get_task

LARGEST = 180.0
ANGLES = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
"""Where accuracy is measured, as shares of the largest angle."""
BATCH, HELD_OUT = 64, 300


def primary() -> nn.Sequential:
    """The network of 11,978 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip


def turned(images: Tensor, share: Tensor) -> Tensor:
    """Images `[n, 1, height, width]` turned by a share of the largest angle, bilinearly."""
    angle = share.double() * math.radians(LARGEST)
    zero = torch.zeros_like(angle)
    matrix = torch.stack([angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero]).view(1, 2, 3).float()
    grid = nn.functional.affine_grid(matrix, [1, *images.shape[1:]], align_corners=False)
    # One grid serves all images when they stand as channels of one.
    ground = images.amin()
    return (
        nn.functional.grid_sample((images - ground).transpose(0, 1), grid, align_corners=False).transpose(0, 1) + ground
    )


class Rotated:
    """Batches for training, in an order of the seed's own, and held-out images at the measured angles."""

    def __init__(self) -> None:
        task = get_task("mnist")
        self.digest = task.digest
        self.images, self.labels = task.train()
        self.validation = self._at_angles(*(part[:HELD_OUT] for part in task.validation()))
        self.test = self._at_angles(*(part[:2000] for part in task.test()))

    def batches(self, seed: int):
        """Endlessly (share of the largest angle `[1]`, images, labels)."""
        generator = torch.Generator().manual_seed(seed)
        while True:
            index = torch.randint(len(self.labels), (BATCH,), generator=generator)
            share = torch.rand(1, generator=generator)
            yield share, turned(self.images[index], share[0]), self.labels[index]

    @staticmethod
    def _at_angles(images: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        return [(share.view(1), turned(images, share), labels) for share in ANGLES]
