"""Trains processors of fields, measures them, and keeps them as artefacts."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

import weightgen
from weightgen.artefact import read_artefact, write_artefact
from weightgen.errors import ArchitectureError, MissingDataError
from weightgen.processors.field_zoo import FieldSet
from weightgen.processors.triplane import Processor, ProcessorConfig
from weightgen.training.loop import LoopConfig, Progress, train

KIND = "processor of fields"
SMOOTHING = 0.1
"""Of the labels."""
AT_ONCE = 256


@dataclass(frozen=True)
class Training:
    """How a processor is trained.

    Args:
        epochs: passes over the training fields.
        batch: fields in a step.
        learning_rate: its highest value.
        weight_decay: decoupled.
        seed: of everything random.
    """

    epochs: int = 60
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    seed: int = 0


@dataclass(frozen=True)
class TrainedProcessor:
    """A processor with the words it answers in, and the fields it reads.

    Args:
        module: the network.
        classes: their names.
        kind: of the fields.
        align_corners: of the fields.
        provenance: how it was made and what was measured, as JSON values.
    """

    module: Processor
    classes: list[str]
    kind: str
    align_corners: bool
    provenance: dict[str, Any]

    def check(self, fields: FieldSet) -> None:
        """Raises ArchitectureError unless it reads such fields."""
        config = self.module.config
        wanted = (self.kind, config.resolution, config.channels, self.align_corners)
        got = (fields.kind, fields.config.resolution, fields.config.channels, fields.config.align_corners)
        if got != wanted:
            names = ("kind", "resolution", "channels", "align_corners")
            raise ArchitectureError(
                "fields of another form than the processor was trained on",
                got=", ".join(f"{name} {value}" for name, value in zip(names, got, strict=True)),
                expected=", ".join(f"{name} {value}" for name, value in zip(names, wanted, strict=True)),
            )  # fmt: skip

    def save_pretrained(self, folder: Path | str) -> None:
        """Writes it as an artefact: `config.json`, `model.safetensors` and a card."""
        config = {
            "processor": asdict(self.module.config), "classes": self.classes, "fields": self.kind,
            "align_corners": self.align_corners, "provenance": self.provenance,
        }  # fmt: skip
        text = json.dumps(self.provenance, indent=2, sort_keys=True)
        card = f"# {Path(folder).name}: a processor of {self.kind} fields\n\nClasses: {', '.join(self.classes)}.\n\n"
        write_artefact(
            folder, KIND, config, self.module.state_dict(), f"{card}    " + text.replace("\n", "\n    ") + "\n"
        )

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "TrainedProcessor":
        """Reads what `save_pretrained` wrote.

        Raises:
            MissingDataError, CorruptFileError: if it is not there or damaged.
        """
        config, tensors = read_artefact(folder, KIND)
        module = Processor(ProcessorConfig(**config["processor"]))
        module.load_state_dict(tensors)
        return cls(module.eval(), config["classes"], config["fields"], config["align_corners"], config["provenance"])


def train_classifier(
    fields: FieldSet,
    where: Tensor,
    head: str = "transformer",
    training: Training | None = None,
    *,
    mirrored: str = "",
    options: dict[str, Any] | None = None,
    state: Path | None = None,
    progress: Progress | None = None,
) -> TrainedProcessor:
    """A classifier, trained on the fields of the given indices.

    Args:
        where: int64, indices of the training fields.
        mirrored: axes along which fields may be mirrored.
        options: further entries of ProcessorConfig.
        state: a file from which a killed training goes on.

    Raises:
        MissingDataError: if no field of `where` has a class, or all have the same.
    """
    training = training or Training()
    where = where[fields.labels[where] >= 0]
    if len(fields.labels[where].unique()) < 2:
        raise MissingDataError(
            "nothing to learn classes from", got=f"{len(where)} training fields with a class",
            expected="fields of at least two classes", remedy="put the sources of each class in a folder of its name",
        )  # fmt: skip
    config = ProcessorConfig(
        fields.config.resolution, fields.config.channels, len(fields.classes), head, fields.decoders.shape[1],
        mirrored=mirrored, margin=min(2, fields.config.resolution - 2), **(options or {}),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        module = Processor(config)

        def loss(step: int) -> tuple[Tensor, dict[str, float]]:
            chosen = where[torch.randint(len(where), (training.batch,))]
            logits = module(fields.planes[chosen], fields.decoders[chosen])
            value = functional.cross_entropy(logits, fields.labels[chosen], label_smoothing=SMOOTHING)
            right = (logits.argmax(-1) == fields.labels[chosen]).float().mean().item()
            return value, {"loss": value.item(), "accuracy": right}

        steps = max(1, training.epochs * len(where) // training.batch)
        loop = LoopConfig(steps, training.learning_rate, max(1, steps // 10), training.weight_decay)
        identity = {"processor": asdict(config), "training": asdict(training), "fields": _digest(fields)}
        train(module, loss, loop, identity=identity, state=state, progress=progress, label=f"classifier ({head})")
    provenance = {
        "training": asdict(training), "loop": asdict(loop), "fields": len(where), "code": weightgen.__version__,
        "torch": torch.__version__,
    }  # fmt: skip
    return TrainedProcessor(module, fields.classes, fields.kind, fields.config.align_corners, provenance)


@torch.no_grad()
def class_probabilities(module: Processor, planes: Tensor, decoders: Tensor) -> Tensor:
    """Of each field, `[fields, classes]`."""
    module.eval()
    parts = zip(planes.split(AT_ONCE), decoders.split(AT_ONCE), strict=True)
    return torch.cat([module(*part).softmax(-1) for part in parts])


def accuracy(processor: TrainedProcessor, fields: FieldSet, where: Tensor, permuted: int | None = None) -> float:
    """The share of fields whose class is found.

    Args:
        permuted: a seed; the channels of each field are then put in an order of its own.
    """
    planes = fields.planes[where]
    if permuted is not None:
        generator = torch.Generator().manual_seed(permuted)
        order = torch.rand(len(planes), planes.shape[2], generator=generator).argsort(1)
        planes = torch.take_along_dim(planes, order[:, None, :, None, None], 2)
    found = class_probabilities(processor.module, planes, fields.decoders[where]).argmax(-1)
    return (found == fields.labels[where]).double().mean().item()


def split_in_two(fields: FieldSet, share: float = 0.2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Indices of training and test fields: their own splits, or else a share of each class is held out."""
    if "test" in fields.splits and "train" in fields.splits:
        return fields.where("train"), fields.where("test")
    order = torch.rand(len(fields.labels), generator=torch.Generator().manual_seed(seed)).argsort()
    held: list[int] = []
    for label in range(len(fields.classes)):
        of_class = order[fields.labels[order] == label].tolist()
        held += of_class[: max(1, round(share * len(of_class)))] if len(of_class) > 1 else []
    chosen = set(held)
    kept = [index for index in range(len(fields.labels)) if index not in chosen and fields.labels[index] >= 0]
    return torch.tensor(kept, dtype=torch.int64), torch.tensor(sorted(held), dtype=torch.int64)


def _digest(fields: FieldSet) -> str:
    from weightgen.storage import tensor_digest

    return tensor_digest(fields.planes) + tensor_digest(fields.labels)


def names_of(classes: Sequence[str], found: Tensor) -> list[str]:
    """The class of each row of probabilities."""
    return [classes[index] for index in found.argmax(-1).tolist()]
