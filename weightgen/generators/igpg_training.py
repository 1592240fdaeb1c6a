"""Training of IGPG on the codes of a zoo's training networks."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weightgen.generators.igpg import IGPG, Prior, PriorConfig, Sampling, code_loss, conditioning
from weightgen.generators.references import Remembered
from weightgen.instructions import Request
from weightgen.instructions.encoder import InstructionEncoder
from weightgen.instructions.templates import sentences
from weightgen.tokenizers import BehaviouralTokenizer, Cell
from weightgen.tokenizers.training import mixtures
from weightgen.training.loop import LoopConfig, Progress, train

SENTENCES = 2_000
"""Template sentences a task from which instructions are drawn."""


@dataclass(frozen=True)
class IGPGTraining:
    """How the prior is trained.

    Args:
        loop: steps and rates; one step is one cell.
        networks: code sequences of a step, half of them mixtures.
        mutation: largest share of a mixture's codes that are drawn at random.
        seed: of everything random.
    """

    loop: LoopConfig
    networks: int = 24
    mutation: float = 0.1
    seed: int = 0


def train_igpg(
    cells: Sequence[Cell],
    tokenizer: BehaviouralTokenizer,
    config: PriorConfig,
    training: IGPGTraining,
    *,
    zoo: Mapping[str, str],
    place: Mapping[str, str] | None = None,
    encoder: InstructionEncoder | None = None,
    sampling: Sampling | None = None,
    state: Path | None = None,
    progress: Progress | None = None,
) -> IGPG:
    """A generator for all tasks and architectures of `cells`, which must be training runs only.

    Half of what the prior learns from are mixtures of the training networks' codes: it then knows what goes with what
    without being able to repeat any one network.

    Args:
        zoo: `name` and `digest` of the zoo the cells come from, for the record.
        place: `name` of the tokenizer, and `path` to it from the folder the generator will be saved in; by default it
            stands on the shelf beside, under the zoo's name.
        encoder: a trained one; if None, one is trained on template sentences.

    Raises:
        MissingDataError: if the data of a task is not on this machine.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        measured: dict[str, float] = {}
        if encoder is None:
            encoder = InstructionEncoder()
            measured = encoder.fit(seed=training.seed)
        encoder.requires_grad_(False).eval()
        prior = Prior(config, tokenizer.config.codebook, tokenizer.config.levels, encoder.dimension)
        remembered = {f"{cell.task}|{cell.architecture}": Remembered.of(cell, tokenizer) for cell in cells}
        spoken = {task: _instructions(encoder, task, training.seed) for task in {cell.task for cell in cells}}

        def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
            cell = cells[step % len(cells)]
            codes = remembered[f"{cell.task}|{cell.architecture}"].codes
            half = training.networks // 2
            chosen = codes[torch.randperm(len(codes))[:half]]
            mixed, _ = mixtures(chosen[:, 1:], training.mutation, tokenizer.config.codebook)
            batch = torch.cat([chosen, torch.cat([chosen[:, :1], mixed], dim=1)])
            family = cell.architecture.family.rpartition("/")[2]
            fitting = spoken[cell.task][family]
            instruction = fitting[torch.randint(len(fitting), (len(batch),))]
            value = code_loss(prior, batch, tokenizer.coordinates(cell.architecture), instruction)
            return value, {"nats": value.item()}

        identity = {"training": asdict(training), "zoo": dict(zoo), "tokenizer": tokenizer.provenance["id"]}
        train(prior, loss, training.loop, identity=identity, state=state, progress=progress, label="prior")
    place = place or {"name": zoo["name"], "path": f"../../tokenizers/{zoo['name']}"}
    provenance = {
        "zoo": dict(zoo),
        "tokenizer": {**place, "id": tokenizer.provenance["id"]},
        "training": asdict(training),
        "encoder": measured,
        "cells": _cells(cells),
    }
    provenance["id"] = hashlib.sha256(repr(sorted(provenance.items())).encode()).hexdigest()[:16]
    return IGPG(encoder, prior, tokenizer, remembered, sampling, provenance)


def _instructions(encoder: InstructionEncoder, task: str, seed: int) -> dict[str, Tensor]:
    """Embeddings of template sentences for a task, by the family they allow."""
    drawn = sentences(task, SENTENCES, seed + 1)
    with torch.no_grad():
        embedded = encoder([conditioning(Request(one.text, task)) for one in drawn])
    return {
        family: embedded[torch.tensor([one.family in (None, family) for one in drawn])] for family in ("mlp", "cnn")
    }


def _cells(cells: Sequence[Cell]) -> dict[str, list[dict[str, Any]]]:
    """What can be generated: for each task its recipes, with the mean test accuracy of the training networks."""
    found: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        known = [accuracy for accuracy in cell.accuracies if accuracy is not None]
        family = cell.architecture.family.rpartition("/")[2]
        widths = cell.architecture.option("hidden" if family == "mlp" else "channels")
        found.setdefault(cell.task, []).append(
            {
                "architecture": str(cell.architecture),
                "family": family,
                "parameters": cell.architecture.parameters,
                "depth": len(widths) if isinstance(widths, tuple) else 1,
                "accuracy": sum(known) / len(known) if known else None,
                "networks": len(cell.ids),
            }
        )
    return found
