"""Part segmentation of fields: procedural shapes, whose parts are known at every point, are what is learned from."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

import weightgen
from weightgen.errors import MissingDataError
from weightgen.fields.shapes import CLASSES, make_shape
from weightgen.processors.field_training import TrainedProcessor, Training
from weightgen.processors.field_zoo import FieldSet
from weightgen.processors.triplane import Processor, ProcessorConfig
from weightgen.storage import tensor_digest
from weightgen.training.loop import LoopConfig, Progress, train

POINTS = 1024
"""Points of each surface whose parts are known; a step sees `POINTS_A_STEP` of them."""
POINTS_A_STEP = 256
OUTSIDE = -1e4
"""What the logits of parts that a class does not have are set to."""


@dataclass(frozen=True)
class PartLabels:
    """Points of surfaces and their parts.

    Args:
        points: `[fields, n, 3]`.
        parts: int64 `[fields, n]`, numbers of all parts of all classes.
    """

    points: Tensor
    parts: Tensor


def part_names(classes: Sequence[str]) -> list[str]:
    """All parts of all classes, `chair/legs`; their places are the numbers that a segmenter answers with."""
    # Of a class that is not procedural no part is known.
    return [f"{name}/{part}" for name in classes if name in CLASSES for part in CLASSES[name][1]]


def part_labels(fields: FieldSet, where: Tensor, count: int = POINTS) -> PartLabels:
    """Points of the shapes that procedural fields were fitted to, and their parts.

    Raises:
        MissingDataError: if a field is not of a procedural shape.
    """
    points, parts = [], []
    for index in where.tolist():
        facts = fields.rows[index].hyperparameters
        if "shape_seed" not in facts or facts.get("class") not in CLASSES:
            raise MissingDataError(
                "the parts of the shape are not known", where=fields.names[index],
                expected="a field of a procedural shape",
                remedy="fit some: weightgen fields fit procedural:1000 --out ZOO",
            )  # fmt: skip
        names = part_names(fields.classes)
        shape = make_shape(facts["class"], facts["shape_seed"])
        found = shape.surface(count, torch.Generator().manual_seed(facts["shape_seed"]))
        points.append(found)
        parts.append(shape.labels(found) + names.index(f"{shape.name}/{shape.parts[0]}"))
    return PartLabels(torch.stack(points), torch.stack(parts))


def train_segmenter(
    fields: FieldSet,
    where: Tensor,
    training: Training | None = None,
    *,
    options: dict[str, Any] | None = None,
    state: Path | None = None,
    progress: Progress | None = None,
) -> TrainedProcessor:
    """A segmenter, trained on the procedural fields of the given indices.

    Args:
        options: further entries of ProcessorConfig.
        state: a file from which a killed training goes on.

    Raises:
        MissingDataError: if there are none, or one is not of a procedural shape.
    """
    training = training or Training()
    if not len(where):
        raise MissingDataError("no fields to learn parts from", expected="fields of procedural shapes")
    labels = part_labels(fields, where)
    names = part_names(fields.classes)
    config = ProcessorConfig(
        fields.config.resolution, fields.config.channels, len(fields.classes), parts=len(names), margin=0,
        **(options or {}),
    )  # fmt: skip
    allowed = part_mask(fields.classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        module = Processor(config)

        def loss(step: int) -> tuple[Tensor, dict[str, float]]:
            chosen = torch.randint(len(where), (training.batch,))
            at = torch.randint(labels.points.shape[1], (training.batch, POINTS_A_STEP))
            points, parts = labels.points[chosen[:, None], at], labels.parts[chosen[:, None], at]
            classes = fields.labels[where[chosen]]
            planes = fields.planes[where[chosen]]
            logits = module.parts(planes, points, classes) + allowed[classes][:, None]
            value = functional.cross_entropy(logits.flatten(0, 1), parts.flatten())
            right = (logits.argmax(-1) == parts).float().mean().item()
            return value, {"loss": value.item(), "accuracy": right}

        steps = max(1, training.epochs * len(where) // training.batch)
        loop = LoopConfig(steps, training.learning_rate, max(1, steps // 10), training.weight_decay)
        identity: dict[str, Any] = {
            "processor": asdict(config), "training": asdict(training), "fields": tensor_digest(fields.planes[where]),
        }  # fmt: skip
        train(module, loss, loop, identity=identity, state=state, progress=progress, label="segmenter")
    provenance = {
        "training": asdict(training), "loop": asdict(loop), "fields": len(where), "code": weightgen.__version__,
        "parts": names, "torch": torch.__version__,
    }  # fmt: skip
    return TrainedProcessor(module, fields.classes, fields.kind, fields.config.align_corners, provenance)


def part_mask(classes: Sequence[str]) -> Tensor:
    """What is added to part logits of each class so that it has only its own parts: `[classes, parts]`."""
    names = part_names(classes)
    return torch.tensor([[0.0 if part.startswith(f"{name}/") else OUTSIDE for part in names] for name in classes])


@torch.no_grad()
def segment(processor: TrainedProcessor, planes: Tensor, points: Tensor, labels: Tensor) -> Tensor:
    """The part of each point: planes `[n, …]`, points `[n, m, 3]`, classes int64 `[n]` → int64 `[n, m]`."""
    module, mask = processor.module.eval(), part_mask(processor.classes)
    parts = zip(planes.split(32), points.split(32), labels.split(32), strict=True)
    return torch.cat([(module.parts(*part) + mask[part[2]][:, None]).argmax(-1) for part in parts])


def mean_part_iou(found: Tensor, true: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """The mean over shapes of the mean over their class's parts of intersection over union, as for ShapeNet part.

    A part that a shape has neither in truth nor in the answer counts as found.

    Returns:
        `instance`, the mean over all shapes, and `class`, the mean over classes.
    """
    allowed = part_mask(classes) == 0
    parts = torch.arange(allowed.shape[1])
    one, other = found[..., None] == parts, true[..., None] == parts  # [fields, points, parts]
    both, either = (one & other).sum(1), (one | other).sum(1)
    iou = torch.where(either > 0, both / either.clamp(min=1), 1.0)
    own = allowed[labels]
    of_shape = (iou * own).sum(1) / own.sum(1)
    of_class = [of_shape[labels == label].mean().item() for label in labels.unique().tolist()]
    return {"instance": of_shape.mean().item(), "class": sum(of_class) / len(of_class)}
