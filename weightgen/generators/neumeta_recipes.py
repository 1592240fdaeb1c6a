"""How a NeuMeta generator is made of one checkpoint: function, training, statistics, figures and card."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import weightgen
from weightgen.artefact import MODEL
from weightgen.checkpoint import Checkpoint
from weightgen.errors import OutputError, WeightgenError
from weightgen.generators.implicit import ImplicitConfig, Sizes
from weightgen.generators.neumeta import NeuMeta, Statistics, function_of
from weightgen.generators.neumeta_training import NeuMetaTraining, fit_function, measure_statistics
from weightgen.tasks import Task, evaluate, get_task
from weightgen.tasks.evaluation import check_fits
from weightgen.training.loop import LoopConfig, Progress

STATE = ".training.safetensors"
"""What a killed training goes on from; removed at the end."""
MEASURED = 17
"""Factors between which statistics of norms are interpolated."""
IMAGES = 2000
"""Training images on which statistics of norms are measured."""


def fit(
    checkpoint: Checkpoint,
    task: Task,
    implicit: ImplicitConfig,
    training: NeuMetaTraining,
    *,
    seed: int = 0,
    factors: Sequence[float] | None = None,
    state: Path | None = None,
    progress: Progress | None = None,
) -> NeuMeta:
    """Trains a generator of a checkpoint's network at all widths from `training.low` to `training.high`.

    Args:
        factors: widths at which the statistics of norms are measured, and between which they are interpolated; if none
            are given, `MEASURED` from below the smallest to the largest.

    Raises:
        ArchitectureError: if the network cannot be traced or resized, or its answers are not those of the task.
        MissingDataError: if the task's data is not on this machine.
        WeightgenError: if the loss is no longer finite; `state` holds the last saved good state.
    """
    if not 0 < training.low <= training.high:
        raise WeightgenError(
            "impossible widths", got=f"{training.low} to {training.high}", expected="0 < smallest ≤ largest"
        )
    images, labels = task.train()
    check_fits(checkpoint.build(), task, task.train()[0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        function = function_of(checkpoint.architecture, checkpoint.state_dict(), implicit)
        generator = NeuMeta(function, checkpoint.architecture, task.name, (training.low, training.high))

        def network(sizes: Sizes) -> torch.nn.Module:
            with torch.random.fork_rng(devices=[]):
                return generator.resized(sizes).build()

        fit_function(
            function, network, generator.sizes, (images, labels), training, seed=seed, state=state, progress=progress,
            identity={"checkpoint": checkpoint.id, "digest": task.digest, "implicit": asdict(implicit)},
        )  # fmt: skip
        shown = images[torch.randperm(len(images))[:IMAGES]]
    if factors is None:
        factors = torch.linspace(min(training.low / 2, 0.25), max(training.high, 1.0), MEASURED).tolist()
    sizes = sorted({generator.sizes(factor) for factor in factors} | {function.full}, key=generator.mean_factor)
    values = measure_statistics(function, network, sizes, shown)
    if values is not None:
        kept = torch.tensor([generator.mean_factor(one) for one in sizes], dtype=torch.float64)
        generator.statistics = Statistics(kept, values)
    provenance = {
        "checkpoint": checkpoint.id, "task": task.name, "digest": task.digest, "seed": seed,
        "training": asdict(training), "code": weightgen.__version__, "torch": torch.__version__,
    }  # fmt: skip
    told = json.dumps([provenance, asdict(implicit)], sort_keys=True)
    generator.provenance = {**provenance, "id": hashlib.sha256(told.encode()).hexdigest()[:16]}
    return generator


def make_neumeta(
    checkpoint: Path | str,
    task: str,
    out: Path | str,
    *,
    steps: int = 3000,
    widths: tuple[float, float] = (0.5, 1.0),
    learning_rate: float = 3e-3,
    batch: int = 64,
    positions: str = "nested",
    hidden: int = 64,
    distillation: float = 0.0,
    scatter: float = 0.0,
    seed: int = 0,
    force: bool = False,
    progress: Progress | None = None,
) -> str:
    """Trains a generator of one checkpoint, writes it, and returns a line about it.

    A training that was killed goes on where it was.

    Raises:
        OutputError: if there is one already and `force` is not set.
        MissingDataError: if the checkpoint is not there, or the task's data is not on this machine.
        WeightgenError, ArchitectureError: as `fit`.
    """
    out, begin = Path(out), time.perf_counter()
    if (out / MODEL).exists() and not force:
        raise OutputError(
            "there is one already", where=out, remedy="choose another folder, or overwrite it with --force"
        )
    loop = LoopConfig(steps, learning_rate, warmup=min(100, steps // 10), save_every=max(1, min(200, steps // 4)))
    training = NeuMetaTraining(
        loop,
        batch,
        *widths,
        distillation=distillation,
        scatter=scatter,
        flip=get_task(task).input[0] == 3,
        autocast=_is_fast_in_half(),
    )
    source = Checkpoint.load(checkpoint)
    generator = fit(
        source, get_task(task), ImplicitConfig(positions, hidden), training, seed=seed, state=out / STATE,
        progress=progress,
    )  # fmt: skip
    measured = _measured(generator, get_task(task))
    generator.provenance["measured"] = measured
    command = f"weightgen train neumeta {checkpoint} --task {task} --out {out} --steps {steps} --seed {seed}"
    seconds = time.perf_counter() - begin
    generator.save_pretrained(out, _card(generator, out, command, seconds))
    return f"{out}: trained in {seconds:.0f} s, validation accuracy " + ", ".join(
        f"{100 * row['accuracy']:.1f} % at {row['width']:.2g}" for row in measured
    )


def _is_fast_in_half() -> bool:
    """Whether this processor computes with bfloat16; elsewhere that is slower."""
    return bool(torch.cpu._is_avx512_bf16_supported())


def _measured(generator: NeuMeta, task: Task) -> list[dict[str, Any]]:
    """Validation accuracy at six widths from the smallest to the largest."""
    found = []
    for width in torch.linspace(*generator.widths, 6).tolist():
        network = generator.network(width)
        accuracy = evaluate(network.build(), task, "validation")["metrics"]["accuracy"]
        found.append({"width": round(width, 4), "parameters": network.parameters, "accuracy": round(accuracy, 5)})
    return found


def _card(generator: NeuMeta, out: Path, command: str, seconds: float) -> str:
    told = generator.provenance
    rows = "\n".join(
        f"| {row['width']:.2f} | {row['parameters']:,} | {100 * row['accuracy']:.2f} |" for row in told["measured"]
    )
    low, high = generator.widths
    return f"""# {out.name}: a NeuMeta generator

Writes `{generator.architecture}` ({generator.architecture.parameters:,} parameters) at any width, trained for widths
from {low:g} to {high:g}; {generator.parameters:,} values of its own, trained in {seconds / 60:.1f} minutes from the
checkpoint {told["checkpoint"]} on the task {told["task"]} (digest {told["digest"]}), weightgen {told["code"]}:

    {command}

Accuracy on validation images of networks as they are written, without data:

| width | parameters | accuracy, % |
|---|---|---|
{rows}
"""
