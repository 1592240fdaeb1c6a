"""How a hypernetwork learns: on a task that changes with the condition, or from the networks and cards of a zoo."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from weightgen.errors import MissingDataError, WeightgenError
from weightgen.generators.conditions import ConditionSpace, Scalar
from weightgen.generators.hypernetwork import Hypernetwork
from weightgen.registry import unknown_name
from weightgen.tasks import Task
from weightgen.tasks.changes import CHANGES
from weightgen.training.loop import LoopConfig, Progress, train
from weightgen.training.population import shared_logits, stack
from weightgen.zoo.zoo import Row

NETWORKS = 8
"""Networks of a zoo that are learned from in a step."""


def changed(space: ConditionSpace, z: Tensor, images: Tensor) -> Tensor:
    """Images as the condition z `[D]` changes them; changes come in the order of the conditions.

    Raises:
        UnknownNameError: for a condition that is no change of images.
    """
    for name, degree in space.describe(z).items():
        if name not in CHANGES:
            raise unknown_name("change of images", name, CHANGES)
        images = CHANGES[name](images, degree)
    return images


def fit_task(
    hyper: Hypernetwork,
    task: Task,
    config: LoopConfig,
    *,
    batch: int = 64,
    seed: int = 0,
    state: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Trains on a task whose images the condition changes: one condition, drawn anew, a step.

    Raises:
        UnknownNameError: for a condition that is no change of images.
        MissingDataError: if the task's data is not on this machine.
        WeightgenError: if the loss is no longer finite.
    """
    images, labels = task.train()
    torch.manual_seed(seed)

    def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
        z = hyper.space.draw(1)[0]
        index = torch.randint(len(labels), (batch,))
        value = task.loss(hyper.forward_at(z, changed(hyper.space, z, images[index])), labels[index])
        return value, {"loss": value.item()}

    identity = {"task": task.name, "digest": task.digest, "batch": batch, "seed": seed, "space": hyper.space.to_json()}
    train(hyper, loss, config, identity=identity, state=state, progress=progress, label="hypernetwork")


def fit_zoo(
    hyper: Hypernetwork,
    rows: Sequence[Row],
    task: Task,
    config: LoopConfig,
    *,
    batch: int = 64,
    seed: int = 0,
    state: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Trains so that the network of a card's figures answers as the zoo's network with that card does.

    Their answers are learned, not their weights: these differ by permutations that no condition tells.

    Args:
        rows: networks of the hypernetwork's architecture.

    Raises:
        MissingDataError: if there are no networks, or the task's data is not on this machine.
        WeightgenError: for a card without the condition's figure or with one out of its range.
    """
    if not rows:
        raise MissingDataError("the zoo has no networks to learn from", where=f"{task.name}, {hyper.architecture}")
    assert hyper.architecture is not None
    z = hyper.space.values({name: [_figure(row, name) for row in rows] for name in hyper.space.entries})
    teachers = stack([row.load().state_dict() for row in rows])
    answers = shared_logits(hyper.architecture)
    images, _ = task.train()
    torch.manual_seed(seed)

    def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
        chosen = torch.randint(len(rows), (min(NETWORKS, len(rows)),))
        shown = images[torch.randint(len(images), (batch,))]
        with torch.no_grad():
            wanted = answers({name: tensor[chosen] for name, tensor in teachers.items()}, shown).log_softmax(-1)
        given = hyper.forward_at(z[chosen], shown, grid=True).log_softmax(-1)  # [networks, batch, classes]
        value = nn.functional.kl_div(given, wanted, reduction="none", log_target=True).sum(-1).mean()
        return value, {"divergence": value.item()}

    identity = {"networks": [row.id for row in rows], "batch": batch, "seed": seed, "space": hyper.space.to_json()}
    train(hyper, loss, config, identity=identity, state=state, progress=progress, label="hypernetwork")


def _figure(row: Row, name: str) -> float | str:
    """A metric or hyperparameter of a network's card, as `metrics.accuracy` or `hyperparameters.learning_rate`."""
    kind, _, entry = name.partition(".")
    kinds: dict[str, Callable[[], Mapping]] = {
        "metrics": lambda: row.metrics, "hyperparameters": lambda: row.hyperparameters
    }  # fmt: skip
    if kind not in kinds:
        raise unknown_name("figure of a card", name, ["metrics.accuracy", "hyperparameters.learning_rate"])
    figures = kinds[kind]()
    if figures.get(entry) is None:
        raise WeightgenError(f"a card has no {kind} '{entry}'", where=row.name, expected=", ".join(figures) or "none")
    return figures[entry]


def ends(space: ConditionSpace, points: int = 5) -> Tensor:
    """z of conditions from the lower end of all ranges to the upper, `[points, D]`; categories and texts as drawn."""
    z = space.draw(points, torch.Generator().manual_seed(0))
    columns = [index for index, name in enumerate(space.names) if isinstance(space.entries.get(name), Scalar)]
    z[:, columns] = torch.linspace(0, 1, points)[:, None].expand(-1, len(columns))
    return z
