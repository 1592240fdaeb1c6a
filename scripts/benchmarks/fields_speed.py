"""Milliseconds of one core that a step of fitting takes for each shape: many at once, and one after the other."""

import statistics
import time
from pathlib import Path
from typing import Any

import torch

from weightgen.fields.fitting import Fitting, fit
from weightgen.fields.kinds import KINDS
from weightgen.fields.shapes import make_shapes
from weightgen.fields.signals import Samples, Sampling, sample
from weightgen.fields.triplane import TriPlane, TriPlaneConfig
from weightgen.processors.field_zoo import TOGETHER, architecture_of

ROUNDS, STEPS, ALONE = 5, 10, 4
POINTS = 1000
CONFIGS = {
    "siren": TriPlaneConfig(16, 8, (32, 32)),
    "relu": TriPlaneConfig(16, 8, (32, 32), decoder="relu", frequencies=0),
}


def measure(cache: Path, out: Path) -> dict[str, Any]:
    """Both sides in turn, round after round, and the least of each: what the machine does else only makes it slower."""
    torch.set_num_threads(1)
    shapes = make_shapes(TOGETHER, 0)
    samples = sample(shapes, range(TOGETHER), Sampling(points=4096, probes=16))
    rows = {}
    for name, config in CONFIGS.items():
        together, alone = [], []
        for _ in range(ROUNDS):
            # Without what measuring the fields at the end takes: the difference of two fittings.
            short, long = (_seconds(lambda steps=steps, config=config: _together(config, samples, steps))
                           for steps in (1, 1 + STEPS))  # fmt: skip
            together.append(1000 * (long - short) / STEPS / TOGETHER)
            alone.append(1000 * _seconds(lambda config=config: _one_by_one(config, samples)) / STEPS / ALONE)
        shape_bytes = 4 * architecture_of(config).parameters
        rows[name] = {
            "milliseconds_together": round(min(together), 3), "milliseconds_alone": round(min(alone), 3),
            "median_together": round(statistics.median(together), 3),
            "median_alone": round(statistics.median(alone), 3),
            "ratio": round(min(alone) / min(together), 2), "bytes_a_shape": shape_bytes,
        }  # fmt: skip
    return {"shapes": TOGETHER, "points": POINTS, "rounds": ROUNDS, "decoders": rows}


def _together(config: TriPlaneConfig, samples: Samples, steps: int) -> None:
    fit(config, "sdf", samples, range(TOGETHER), Fitting(steps, POINTS))


def _one_by_one(config: TriPlaneConfig, samples: Samples) -> None:
    """The plain loop: a module and an optimiser for each shape."""
    kind = KINDS["sdf"]
    for index in range(ALONE):
        module = TriPlane(config)
        optimiser = torch.optim.Adam(module.parameters(), 1e-3)
        points, targets = samples.points[index], kind.target(samples.distances[index])
        for _ in range(STEPS):
            chosen = torch.randint(len(points), (POINTS,))
            loss = kind.loss(module(points[chosen])[:, 0], targets[chosen]).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


def _seconds(call) -> float:
    # Processor time, since a machine that is busy with other work makes the clock say anything.
    begin = time.process_time()
    call()
    return time.process_time() - begin
