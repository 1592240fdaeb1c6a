"""What follows a change of size, the same for every method: statistics of norms measured anew, then training steps."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from weightgen.structure.axes import AxisGraph
from weightgen.structure.resizing import Gather
from weightgen.tasks.task import Task
from weightgen.training.loop import LoopConfig, Progress, train
from weightgen.training.recalibration import recalibrate


@dataclass(frozen=True)
class Finishing:
    """What is done with a network of a new size.

    Args:
        recalibrate: `data` sets batch norms by the change that training images show, `absolute` to what they are on
            these, `synthetic` by the change that noise shows, None leaves them.
        images: so many training images, or images of noise, are looked at for that.
        steps: training steps; 0 for none.
        distil: learn the answers of the network it was made from, in place of the labels.
        batch: images of a step.
        learning_rate: its highest value.
    """

    recalibrate: str | None = None
    images: int = 1000
    steps: int = 0
    distil: bool = False
    batch: int = 128
    learning_rate: float = 1e-3


def training_images(task: Task, count: int, seed: int) -> Tensor:
    """Images of the training split, drawn once for a seed."""
    images, _ = task.train()
    return images[torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:count]]


def noise_like(example: Tensor, count: int, seed: int) -> Tensor:
    """Gaussian noise in place of images, `[count, …]`, for a network whose data is not there."""
    return torch.randn(count, *example.shape[1:], generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def recalibrate_by_change(module: nn.Module, origin: nn.Module, found: Mapping[str, Gather], images: Tensor) -> None:
    """Sets the norms of a network from those of the network it was made from and from how both see the same images.

    By as much as the statistics of a norm differ between the two on these images, they are taken to differ on the data
    that the norms were made on: the mean by a shift in units of the deviation, the variance by a factor. So images that
    are not quite like that data, or noise, do not change what they did not change before.

    Args:
        origin: the network it was made from; left as it was.
        found: where the tensors of the network come from.
        images: `[n, …]`.
    """
    known = {name: tensor.clone() for name, tensor in origin.state_dict().items() if "running_" in name}
    recalibrate(origin, images)
    seen = {name: tensor.clone() for name, tensor in origin.state_dict().items() if name in known}
    origin.load_state_dict(known, strict=False)
    recalibrate(module, images)
    state = module.state_dict()
    for name in known:
        twin = name.replace("running_mean", "running_var")
        if not name.endswith("running_mean") or name not in state:
            continue
        old_mean, old_variance, mean, variance = (
            found[one](values[one]) if one in found else values[one] for values in (known, seen) for one in (name, twin)
        )
        ratio = (old_variance / variance.clamp_min(1e-12)).clamp(1e-6, 1e6)
        state[name].copy_(old_mean + (state[name] - mean) * ratio.sqrt())
        state[twin].mul_(ratio)


def fine_tune(
    module: nn.Module,
    task: Task,
    finishing: Finishing,
    *,
    teacher: nn.Module | None = None,
    seed: int = 0,
    state: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Trains a network in place for some steps on the training split.

    Args:
        teacher: the network whose answers are learned if `finishing.distil`: the mean Kullback–Leibler divergence of
            the network's probabilities from its own (https://arxiv.org/abs/1503.02531).
        state: a file for the state of the training, with which it goes on if it was killed.
    """
    images, labels = task.train()
    distil = finishing.distil and teacher is not None

    def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
        chosen = torch.randint(len(labels), (finishing.batch,))
        answers = module(images[chosen])
        if distil:
            with torch.no_grad():
                wanted = teacher(images[chosen]).log_softmax(-1)  # type: ignore[misc]
            value = functional.kl_div(answers.log_softmax(-1), wanted, log_target=True, reduction="batchmean")
        else:
            value = task.loss(answers, labels[chosen])
        return value, {"loss": value.item()}

    config = LoopConfig(
        finishing.steps, finishing.learning_rate, warmup=min(100, finishing.steps // 10), weight_decay=1e-4
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        identity = {"task": task.name, "seed": seed, "batch": finishing.batch, "distil": distil}
        train(module, loss, config, identity=identity, state=state, progress=progress, label="fine-tuning")


def fixed_axes(graph: AxisGraph) -> dict[str, list[str]]:
    """Reason → axes that cannot be resized for it; those of inputs, outputs, kernels and tables are left out."""
    found: dict[str, list[str]] = {}
    for (tensor, axis), reason in graph.frozen.items():
        if not any(words in reason for words in ("an input", "an output", "a kernel", "a table")):
            found.setdefault(reason, []).append(f"{tensor}[{axis}]")
    return found
