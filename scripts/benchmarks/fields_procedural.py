"""Procedural shapes: how well each kind of field stores them, their classes from occupancy, their parts."""

from pathlib import Path
from typing import Any

import torch
from fields_modelnet import every

from weightgen.fields.fitting import Fitting, fit
from weightgen.fields.kinds import KINDS
from weightgen.fields.rendering import contact_sheet, render_surface, write_png
from weightgen.fields.shapes import make_shapes
from weightgen.fields.signals import Sampling, sample
from weightgen.fields.sources import find_sources
from weightgen.fields.surfaces import chamfer, distances, intersection_over_union, spread
from weightgen.fields.triplane import TriPlaneConfig
from weightgen.processors.field_parts import mean_part_iou, part_labels, segment, train_segmenter
from weightgen.processors.field_training import Training, accuracy, train_classifier
from weightgen.processors.field_zoo import FieldSet, fit_zoo, open_or_create, read_fields

STORED = 24
STORING = TriPlaneConfig(resolution=32, channels=8, hidden=(64, 64), decoder="relu", frequencies=4)
STORE = Fitting(steps=1000, points=2048, plane_rate=2e-2, decoder_rate=2e-3)
GRID = 96
SURFACE = 8192

FIELDS, TEST = 1440, 240
READING = TriPlaneConfig(resolution=16, channels=8, hidden=(32, 32), decoder="relu", frequencies=0)
READ = Fitting(steps=150, points=512, plane_rate=3e-2, decoder_rate=3e-3)


def reconstruction(cache: Path, out: Path) -> dict[str, Any]:
    """IoU of solids on a grid, Chamfer distance of unsigned fields, over shapes of all classes."""
    shapes = make_shapes(STORED, 1)
    samples = sample(shapes, range(STORED), Sampling(points=32768, deviations=(0.005, 0.02, 0.1), probes=1024))
    rows: dict[str, dict[str, Any]] = {}
    pictures = []
    for name, kind in KINDS.items():
        tensors = fit(STORING, name, samples, range(STORED), STORE, told=every(100)).tensors
        pictures.append(render_surface(STORING, kind, tensors, side=96))
        scores = [
            _score(shape, name, {key: tensor[[index]] for key, tensor in tensors.items()})
            for index, shape in enumerate(shapes)
        ]
        rows[name] = {
            measure: {"mean": round(sum(values) / len(values), 4), "worst": worst(values)}
            for measure, worst in (("iou", min), ("chamfer", max), ("accuracy", max))
            if (values := [score[measure] for score in scores if measure in score])
        }
        print(name, rows[name], flush=True)
    # One row a kind: the first twelve shapes, one of each class.
    write_png(out / "fields.png", contact_sheet(torch.cat([part[:12] for part in pictures]), 12))
    floor = [chamfer(*(shape.surface(SURFACE, torch.Generator().manual_seed(seed))[None] for seed in (1, 2))).item()
             for shape in shapes[:12]]  # fmt: skip
    return {
        "shapes": STORED, "resolution": STORING.resolution, "channels": STORING.channels, "steps": STORE.steps,
        "points_a_step": STORE.points, "kinds": rows, "chamfer_of_two_true_clouds": round(sum(floor) / len(floor), 4),
    }  # fmt: skip


@torch.no_grad()
def _score(shape, name: str, tensors) -> dict[str, float]:
    kind = KINDS[name]
    found: dict[str, float] = {}
    if kind.solid:
        line = torch.linspace(-1, 1, GRID)
        points = torch.cartesian_prod(line, line, line)
        inside = torch.cat([distances(STORING, kind, tensors, part[None])[0] < 0 for part in points.split(65536)])
        true = torch.cat([shape.distance(part) < 0 for part in points.split(65536)])
        found["iou"] = intersection_over_union(inside, true).item()
    if name != "occupancy":
        cloud = spread(STORING, kind, tensors, SURFACE)
        found["chamfer"] = chamfer(cloud[None], shape.surface(SURFACE, torch.Generator().manual_seed(0))[None]).item()
        # How far the found points are from the true surface, which needs no second cloud.
        found["accuracy"] = shape.distance(cloud).abs().mean().item()
    return found


def _fields(cache: Path) -> tuple[FieldSet, torch.Tensor, torch.Tensor]:
    """Occupancy fields of many shapes; the last are the test shapes."""
    zoo = open_or_create(cache / "procedural")
    sources = find_sources([f"procedural:{FIELDS}:2"], True)
    fit_zoo(zoo, sources, "occupancy", READING, READ, Sampling(points=2048, probes=512), told=every(128))
    found = read_fields(zoo)
    order = torch.tensor(sorted(range(FIELDS), key=lambda index: found.names[index]))
    return found, order[:-TEST], order[-TEST:]


def occupancy(cache: Path, out: Path) -> dict[str, Any]:
    found, train, test = _fields(cache)
    training = Training(epochs=60, batch=64)
    options = {"mirrored": "xy", "options": {"swapped": True}, "progress": every(100)}
    processor = train_classifier(found, train, "transformer", training, state=cache / "occupancy.state", **options)
    return {
        "train": len(train), "test": len(test), "classes": len(found.classes), "steps": READ.steps,
        "iou": round(sum(row.metrics["validation.iou"] for row in found.rows) / FIELDS, 4),
        "accuracy": accuracy(processor, found, test), "accuracy_permuted": accuracy(processor, found, test, permuted=0),
    }  # fmt: skip


def segmentation(cache: Path, out: Path) -> dict[str, Any]:
    found, train, test = _fields(cache)
    training = Training(epochs=40, batch=32)
    processor = train_segmenter(found, train, training, state=cache / "segmentation.state", progress=every(100))
    labels = part_labels(found, test)
    parts = segment(processor, found.planes[test], labels.points, found.labels[test])
    return {
        "train": len(train), "test": len(test), "accuracy": (parts == labels.parts).double().mean().item(),
        "part_miou": mean_part_iou(parts, labels.parts, found.labels[test], found.classes),
    }  # fmt: skip
