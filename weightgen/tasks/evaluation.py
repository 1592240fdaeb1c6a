"""How good a network is at a task."""

from collections.abc import Callable

import torch
from torch import Tensor

from weightgen.errors import ArchitectureError
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
        ArchitectureError: if the network does not take the task's images or has other outputs.
    """
    images, labels = task.split(split)
    was_training = network.training
    network.eval()
    try:
        # In evaluation mode: one image must not become the statistics of norms.
        check_fits(network, task, images)
        right = (predictions(network, images) == labels).double().mean().item()
    finally:
        network.train(was_training)
    return {"task": task.name, "split": split, "examples": len(labels), "metrics": {"accuracy": right}}


def check_fits(network: torch.nn.Module, task: Task, images: Tensor) -> None:
    """Refuses a network that is not for a task.

    Args:
        images: some of the task's.

    Raises:
        ArchitectureError: if the network does not take the task's images or has other outputs.
    """
    try:
        with torch.no_grad():
            outputs = network(images[:1]).shape[-1]
    except (RuntimeError, ValueError) as error:
        raise ArchitectureError(
            "the network does not take the task's images", where=task.name, got=str(error), expected=list(task.input)
        ) from error
    if outputs != len(task.classes):
        raise ArchitectureError(
            "the network has not as many outputs as the task has classes", where=task.name, got=outputs,
            expected=len(task.classes),
        )  # fmt: skip
