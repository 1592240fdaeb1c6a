"""ModelNet10: unsigned distance fields of all clouds, classified by four heads, beside a PointNet on the clouds."""

import itertools
import os
import time
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional

from weightgen.errors import MissingDataError
from weightgen.fields.fitting import Fitting
from weightgen.fields.signals import Sampling
from weightgen.fields.sources import find_sources
from weightgen.fields.triplane import TriPlaneConfig
from weightgen.processors.field_training import TrainedProcessor, Training, accuracy, train_classifier
from weightgen.processors.field_zoo import FieldSet, fit_zoo, open_or_create, read_fields
from weightgen.processors.triplane import HEADS

CONFIG = TriPlaneConfig(resolution=16, channels=8, hidden=(32, 32), decoder="relu", frequencies=0)
FITTING = Fitting(steps=150, points=512, plane_rate=3e-2, decoder_rate=3e-3)
SAMPLING = Sampling(points=2048, probes=256)
SEEDS = 3
"""Of the transformer; the heads it is compared with have one."""
TRAININGS = {
    "transformer": Training(epochs=60, batch=64, learning_rate=1e-3),
    "cnn": Training(epochs=40, batch=64, learning_rate=2e-3),
    "mlp": Training(epochs=40, batch=64, learning_rate=1e-3),
    "decoder": Training(epochs=40, batch=64, learning_rate=1e-3),
}
POINT_EPOCHS, POINT_BATCH, POINTS = 27, 32, 256


def clouds() -> Path:
    path = Path(os.environ.get("WEIGHTGEN_DATA", "")) / "modelnet10_1024.npz"
    if not path.is_file():
        raise MissingDataError("the clouds are not there", where=path, remedy="set WEIGHTGEN_DATA")
    return path


def fields(cache: Path) -> tuple[FieldSet, dict[str, Any]]:
    """The fields of all clouds, fitted if they are not there yet."""
    zoo = open_or_create(cache / "modelnet10")
    begin = time.process_time()
    report = fit_zoo(zoo, find_sources([clouds()], False), "udf", CONFIG, FITTING, SAMPLING, told=_say)
    seconds = time.process_time() - begin
    found = read_fields(zoo)
    size = sum(path.stat().st_size for path in zoo.path.rglob("*") if path.is_file())
    facts = {
        "fields": len(found.names), "resolution": CONFIG.resolution, "channels": CONFIG.channels,
        "steps": FITTING.steps, "points_a_step": FITTING.points, "bytes_a_shape": round(size / len(found.names)),
        "chamfer": round(sum(row.metrics["validation.chamfer"] for row in found.rows) / len(found.rows), 4),
    }  # fmt: skip
    if report.fitted:
        facts["fit_seconds_a_shape"] = round(seconds / len(report.fitted), 3)
    return found, facts


def measure(cache: Path, out: Path) -> dict[str, Any]:
    """All heads on all fields; a head that was trained before is not trained again."""
    found, facts = fields(cache)
    train, test = found.where("train"), found.where("test")
    rows: dict[str, dict[str, Any]] = {}
    for head in HEADS:
        rows[head] = {"accuracy": [], "accuracy_permuted": []}
        for seed in range(SEEDS if head == "transformer" else 1):
            folder = cache / f"modelnet10-{head}-{seed}"
            if not folder.exists():
                training = Training(**{**vars(TRAININGS[head]), "seed": seed})
                options = {"mirrored": "xy", "state": cache / f"{folder.name}.state", "progress": every(100)}
                train_classifier(found, train, head, training, **options).save_pretrained(folder)
            processor = TrainedProcessor.from_pretrained(folder)
            rows[head]["accuracy"].append(accuracy(processor, found, test))
            rows[head]["accuracy_permuted"].append(accuracy(processor, found, test, permuted=seed))
        print(head, rows[head], flush=True)
    return {
        **facts,
        "train": len(train),
        "test": len(test),
        "most_frequent": _most_frequent(found, test),
        "heads": rows,
    }


def measure_pointnet(cache: Path, out: Path) -> dict[str, Any]:
    """The PointNet on the same clouds and split."""
    return {"epochs": POINT_EPOCHS, "points": POINTS, "accuracy": [pointnet(0)]}


def _most_frequent(found: FieldSet, test: Tensor) -> float:
    """What always naming the most frequent class gets."""
    return found.labels[test].bincount().max().item() / len(test)


class PointNet(nn.Module):
    """Small, after https://arxiv.org/abs/1612.00593: points to features one by one, their maximum to classes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        widths = (3, 64, 128, 256)
        layers: list[nn.Module] = []
        for read, written in itertools.pairwise(widths):
            layers += [nn.Conv1d(read, written, 1), nn.BatchNorm1d(written), nn.ReLU()]
        self.points = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(256, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, classes)
        )

    def forward(self, points: Tensor) -> Tensor:
        return self.head(self.points(points.transpose(1, 2)).amax(-1))


def pointnet(seed: int) -> float:
    """Test accuracy of a PointNet on the raw clouds: noise and scale, some random points of each cloud in training."""
    data = numpy.load(clouds())
    points, test_points = (torch.from_numpy(data[f"{split}_points"]).float() for split in ("train", "test"))
    labels, test_labels = (torch.from_numpy(data[f"{split}_labels"]).long() for split in ("train", "test"))
    torch.manual_seed(seed)
    module = PointNet(len(data["classes"]))
    optimiser = torch.optim.Adam(module.parameters(), 1e-3)
    steps = POINT_EPOCHS * (len(labels) // POINT_BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    module.train()
    for step in range(steps):
        chosen = torch.randint(len(labels), (POINT_BATCH,))
        batch = points[chosen][:, torch.randperm(points.shape[1])[:POINTS]]
        batch = batch * (0.8 + 0.4 * torch.rand(POINT_BATCH, 1, 1)) + 0.01 * torch.randn_like(batch)
        loss = functional.cross_entropy(module(batch), labels[chosen], label_smoothing=0.1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 200 == 0:
            print(f"pointnet {step} of {steps}, loss {loss.item():.3f}", flush=True)
    module.eval()
    with torch.no_grad():
        right = [(module(part).argmax(-1) == wanted) for part, wanted in zip(
            test_points.split(64), test_labels.split(64), strict=True)]  # fmt: skip
    return torch.cat(right).double().mean().item()


def _say(done: int, total: int, text: str) -> None:
    if done % 64 < 1:
        print(f"{done} of {total}: {text}", flush=True)


def every(steps: int):
    def say(done: int, total: int, text: str) -> None:
        if done % steps == 0 or done == total:
            print(f"{done} of {total}: {text}", flush=True)

    return say
