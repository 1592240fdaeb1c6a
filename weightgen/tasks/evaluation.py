"""How good a network is at a task."""

from collections.abc import Callable

import torch
from torch import Tensor

from weightgen.tasks.task import Split, Task

BATCH = 2048


@torch.no_grad()
def predictions(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The class a network gives to each image; images `[n, …]`, result int64 `[n]`."""
    return torch.cat([network(part).argmax(-1) for part in images.split(BATCH)])


def evaluate(network: torch.nn.Module, task: Task, split: Split = "test") -> dict:
    """The accuracy of `network` on one split of `task`.

    Returns:
        `{"task", "split", "examples", "metrics": {"accuracy"}}`, the accuracy in 0…1.

    Raises:
        MissingDataError: if the task's data is not on this machine.
    """
    images, labels = task.split(split)
    was_training = network.training
    network.eval()
    try:
        right = (predictions(network, images) == labels).double().mean().item()
    finally:
        network.train(was_training)
    return {"task": task.name, "split": split, "examples": len(labels), "metrics": {"accuracy": right}}
