"""What the commands `weightgen fields …` do."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weightgen.architecture import Architecture
from weightgen.artefact import MODEL
from weightgen.errors import MissingDataError, OutputError
from weightgen.fields.fitting import Fitting, find_kind
from weightgen.fields.radiance import around, render_radiance
from weightgen.fields.rendering import contact_sheet, render_surface, write_png
from weightgen.fields.signals import Sampling
from weightgen.fields.sources import find_sources
from weightgen.fields.surfaces import march, spread, write_mesh, write_points
from weightgen.fields.triplane import TriPlaneConfig
from weightgen.processors.field_parts import segment, train_segmenter
from weightgen.processors.field_training import (
    TrainedProcessor,
    Training,
    class_probabilities,
    split_in_two,
    train_classifier,
)
from weightgen.processors.field_zoo import FAMILY, FitReport, config_of, fit_zoo, open_or_create, read_fields
from weightgen.training.loop import Progress
from weightgen.zoo import Row, Zoo

CLASSIFIER, SEGMENTER = "classifier", "segmenter"
SHOWN = 20
"""Rows of a table of classes."""
PART_COLOURS = ((205, 92, 72), (66, 133, 202), (240, 196, 83), (112, 173, 101), (150, 110, 180))


def fit_paths(
    paths: Sequence[str],
    out: Path,
    kind: str,
    *,
    resolution: int,
    channels: int,
    steps: int,
    points: int,
    target: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> FitReport:
    """Fits a field to each source of the paths and adds it to the zoo `out`.

    Raises:
        MissingDataError: if there is nothing to fit.
        UnknownNameError: for a kind that does not exist.
    """
    if not paths:
        raise MissingDataError("nothing to fit", expected="files, folders or procedural:COUNT")
    solid = find_kind(kind).solid
    config = TriPlaneConfig(resolution, channels, (32, 32), decoder="relu", frequencies=0)
    fitting = Fitting(steps, points, target=target)
    sampling = Sampling(points=8 * points)
    return fit_zoo(
        open_or_create(out), find_sources(paths, solid), kind, config, fitting, sampling, seed=seed, told=progress
    )


@dataclass(frozen=True)
class Classified:
    """What a classifier says of a zoo's fields.

    Args:
        processor: its folder.
        names: of the fields.
        true: the class of each, or None.
        found: the class that was found.
        probabilities: of the class that was found.
        accuracy: on test fields, None where no test field has a class.
        tested: how many these are.
    """

    processor: Path
    names: list[str]
    true: list[str | None]
    found: list[str]
    probabilities: list[float]
    accuracy: float | None
    tested: int

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        fields = [
            {"name": name, "class": true, "found": found, "probability": round(probability, 4)}
            for name, true, found, probability in zip(
                self.names, self.true, self.found, self.probabilities, strict=True
            )
        ]
        return {"processor": str(self.processor), "accuracy": self.accuracy, "tested": self.tested, "fields": fields}

    def title(self) -> str:
        """What was measured, in a line."""
        measured = "no test field has a class" if self.accuracy is None else f"accuracy {100 * self.accuracy:.1f} %"
        more = f", the first {SHOWN} of {len(self.names)}" if len(self.names) > SHOWN else ""
        return f"{self.processor}: {measured} on {self.tested} test fields{more}"

    def rows(self) -> list[tuple[str, ...]]:
        """Rows of a table."""
        columns = zip(self.names, self.true, self.found, self.probabilities, strict=True)
        return [
            (name, true or "", found, f"{probability:.2f}") for name, true, found, probability in list(columns)[:SHOWN]
        ]


def classify_zoo(
    path: Path | str,
    folder: Path | None = None,
    *,
    epochs: int = 60,
    seed: int = 0,
    force: bool = False,
    progress: Progress | None = None,
) -> Classified:
    """The class of each test field, by a classifier that is there or is trained on the training fields.

    Where the fields of a zoo know no split, a fifth of each class is held out for the test.

    Raises:
        MissingDataError: if there are no fields, or no classes to learn.
        ArchitectureError: if the classifier reads other fields.
    """
    zoo = Zoo.open(path)
    folder = zoo.path / CLASSIFIER if folder is None else folder
    there = (folder / MODEL).exists() and not force
    if there:
        processor = TrainedProcessor.from_pretrained(folder)
        fields = read_fields(zoo, classes=processor.classes)
        processor.check(fields)
    else:
        fields = read_fields(zoo)
    train, test = split_in_two(fields, seed=seed)
    if not there:
        training = Training(epochs=epochs, batch=min(64, max(8, len(train) // 4)), seed=seed)
        state = folder / ".state.safetensors"
        processor = train_classifier(fields, train, "transformer", training, state=state, progress=progress)
        processor.save_pretrained(folder)
    # A classifier from elsewhere may never have seen these fields, whatever their classes.
    shown = test if len(test) else torch.arange(len(fields.names))
    probabilities = class_probabilities(processor.module, fields.planes[shown], fields.decoders[shown])
    labels = fields.labels[shown]
    known = labels >= 0
    right = (probabilities.argmax(-1) == labels)[known].double()
    words = [processor.classes[label] if label >= 0 else None for label in labels.tolist()]
    return Classified(
        folder, [fields.names[index] for index in shown.tolist()], words,
        [processor.classes[index] for index in probabilities.argmax(-1).tolist()], probabilities.amax(-1).tolist(),
        right.mean().item() if len(right) else None, len(right),
    )  # fmt: skip


def segment_field(
    path: Path | str,
    name: str,
    out: Path,
    folder: Path | None = None,
    *,
    epochs: int = 60,
    seed: int = 0,
    points: int = 4096,
    progress: Progress | None = None,
) -> str:
    """Writes points of a field's surface, coloured by part, and returns a line about them.

    Raises:
        MissingDataError: if no segmenter is there and the zoo has no procedural fields to learn from.
        OutputError: if `out` is not a .ply file.
    """
    if out.suffix != ".ply":
        raise OutputError("not the name of a point cloud", where=out, expected="a name that ends in .ply")
    zoo = Zoo.open(path)
    row = zoo.row(name)
    folder = zoo.path / SEGMENTER if folder is None else folder
    if (folder / MODEL).exists():
        processor = TrainedProcessor.from_pretrained(folder)
    else:
        fields = read_fields(zoo)
        others = torch.tensor([index for index, each in enumerate(fields.names) if each != row.name])
        training = Training(epochs=epochs, batch=min(32, max(4, len(others) // 4)), seed=seed)
        state = folder / ".state.safetensors"
        processor = train_segmenter(fields, others, training, state=state, progress=progress)
        processor.save_pretrained(folder)
    fields = read_fields(zoo, f"id = '{row.id}'", processor.classes)
    processor.check(fields)
    if fields.labels[0] < 0:
        raise MissingDataError(
            "the class of the field is not known to the segmenter", where=row.name,
            got=row.hyperparameters.get("class"), expected=", ".join(processor.classes),
        )  # fmt: skip
    tensors = {key: tensor[None] for key, tensor in row.load().state_dict().items()}
    cloud = spread(config_of(Architecture.parse(row.architecture)), find_kind(fields.kind), tensors, points)
    found = segment(processor, fields.planes, cloud[None], fields.labels)[0]
    names = processor.provenance["parts"]
    own = sorted(part for part in names if part.startswith(f"{processor.classes[int(fields.labels[0])]}/"))
    colours = torch.tensor([PART_COLOURS[own.index(names[part]) % len(PART_COLOURS)] for part in found.tolist()])
    write_points(out, cloud, colours)
    shares = ", ".join(f"{part} {100 * (found == names.index(part)).float().mean():.0f} %" for part in own)
    return f"{out}: {len(cloud)} points, {shares}"


def render_fields(
    path: Path | str,
    out: Path,
    name: str | None = None,
    *,
    side: int = 128,
    limit: int = 48,
    azimuth: float = 35.0,
    progress: Progress | None = None,
) -> str:
    """Draws a field or a sheet of a zoo's fields, or writes a field's surface as a mesh; returns a line about it.

    Raises:
        OutputError: if `out` ends in neither .png nor .ply, or a sheet is to be a mesh.
    """
    zoo = Zoo.open(path)
    if out.suffix not in (".png", ".ply") or (name is None and out.suffix == ".ply"):
        raise OutputError("not the name of a picture", where=out, expected="a .png file, or a .ply file for one field")
    if out.suffix == ".ply":
        row = zoo.row(str(name))
        config, tensors = _one(row)
        vertices, faces = march(config, find_kind(str(row.task)), tensors, side)
        write_mesh(out, vertices, faces)
        return f"{out}: {len(vertices)} vertices, {len(faces)} faces"
    rows = [zoo.row(name)] if name is not None else _some(zoo, limit)
    images = []
    for done, row in enumerate(rows, 1):
        images.append(_picture(row, side, azimuth))
        if progress is not None:
            progress(done, len(rows), row.name)
    columns = 1 if name is not None else max(1, round((len(images) * 1.5) ** 0.5))
    sheet = contact_sheet(torch.stack(images), columns)
    write_png(out, sheet)
    return f"{out}: {len(images)} {'field' if len(images) == 1 else 'fields'}, {sheet.shape[1]} × {sheet.shape[0]}"


def _one(row: Row) -> tuple[TriPlaneConfig, dict[str, Tensor]]:
    tensors = {name: tensor[None].float() for name, tensor in row.load().state_dict().items()}
    return config_of(Architecture.parse(row.architecture)), tensors


def _picture(row: Row, side: int, azimuth: float) -> Tensor:
    config, tensors = _one(row)
    if row.task == "radiance":
        poses = around(1, torch.Generator().manual_seed(round(azimuth)))
        return render_radiance(config, tensors, poses[None], side)[0, 0]
    return render_surface(config, find_kind(str(row.task)), tensors, side=side, azimuth=azimuth)[0]


def _some(zoo: Zoo, limit: int) -> list[Row]:
    """So many fields, of each class as many; no tensor is read."""
    rows = [row for row in zoo if row.architecture.startswith(FAMILY)]
    if not rows:
        raise MissingDataError(
            "no fields there", where=zoo.path, remedy="fit some: weightgen fields fit PATH --out ZOO"
        )
    seen: dict[str, int] = {}
    keys = []
    for index, row in enumerate(rows):
        label = str(row.hyperparameters.get("class", ""))
        seen[label] = seen.get(label, 0) + 1
        keys.append((seen[label], label, index))
    return [rows[index] for _, _, index in sorted(sorted(keys)[:limit], key=lambda key: (key[1], key[2]))]
