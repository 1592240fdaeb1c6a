"""From a zoo to a trained tokenizer and generator on disk, each with its card."""

import hashlib
import json
import os
import time
from dataclasses import asdict
from pathlib import Path

import torch

import weightgen
from weightgen.artefact import MODEL
from weightgen.errors import MissingDataError, OutputError
from weightgen.generators.igpg import PriorConfig
from weightgen.generators.igpg_training import IGPGTraining, train_igpg
from weightgen.shelf import shelf
from weightgen.tasks import get_task
from weightgen.tokenizers import BehaviouralTokenizer, Cell
from weightgen.tokenizers.model import CodecConfig
from weightgen.tokenizers.training import TokenizerTraining, train_tokenizer
from weightgen.training.loop import LoopConfig, Progress
from weightgen.training.population import population_predictions
from weightgen.zoo import Zoo
from weightgen.zoo.cells import zoo_cells

STATE = ".state.safetensors"


def make_tokenizer(
    zoo: Path | str,
    out: Path | str,
    *,
    steps: int,
    seed: int = 0,
    workers: int = 1,
    force: bool = False,
    progress: Progress | None = None,
) -> str:
    """Trains a tokenizer on the training runs of a zoo, writes it, and returns a line about it.

    Raises:
        OutputError: if there is a tokenizer already and `force` is not set.
        MissingDataError: if the zoo has no training runs, or the data of a task is not on this machine.
    """
    out, begin = _target(out, force), time.perf_counter()
    opened = Zoo.open(zoo)
    cells = _training_cells(opened)
    training = TokenizerTraining(LoopConfig(steps, learning_rate=4e-3), seed=seed)
    tokenizer = train_tokenizer(cells, CodecConfig(), training, state=out / STATE, progress=progress, workers=workers)
    command = f"weightgen train tokenizer --zoo {_told(zoo)} --out {_told(out)} --steps {steps} --seed {seed}"
    return write_tokenizer(tokenizer, opened, training, out, command, time.perf_counter() - begin)


def write_tokenizer(
    tokenizer: BehaviouralTokenizer, opened: Zoo, training: TokenizerTraining, out: Path, command: str, seconds: float
) -> str:
    """Writes a trained tokenizer with a card that shows how networks it has not seen survive it."""
    tokenizer.provenance = {
        "zoo": {"name": _name(opened), "digest": opened.digest},
        "training": asdict(training),
        "code": weightgen.__version__,
        "torch": torch.__version__,
    }
    told = json.dumps(tokenizer.provenance, sort_keys=True)
    tokenizer.provenance["id"] = hashlib.sha256(told.encode()).hexdigest()[:16]
    held_out = zoo_cells(opened, "split = 'validation'")
    table = "\n".join(_row(tokenizer, cell) for cell in held_out)
    card = f"""# {out.name}: a WeightTokenizer

{tokenizer.config.levels} levels of {tokenizer.config.codebook} codes for each {tokenizer.config.chunk} values,
{_parameters(torch.nn.ModuleList(tokenizer.codecs.values()))} parameters in the codecs of {len(tokenizer.codecs)}
architectures, trained in {seconds / 60:.0f} minutes on the training runs of the zoo {_name(opened)}
(digest {opened.digest}):

    {command}

Networks of validation runs, which it has not seen, encoded, decoded and run on their task's test images:

| task | architecture | networks | accuracy before, % | decoded, % | bits a weight |
|---|---|---|---|---|---|
{table}
"""
    tokenizer.save_pretrained(out, card)
    return f"{out}: trained in {seconds:.0f} s"


def make_igpg(
    zoo: Path | str,
    tokenizer: Path | str,
    out: Path | str,
    *,
    steps: int,
    seed: int = 0,
    force: bool = False,
    progress: Progress | None = None,
) -> str:
    """Trains an IGPG generator on the codes of the training runs of a zoo, writes it, and returns a line about it.

    Raises:
        OutputError: if there is a generator already and `force` is not set.
        MissingDataError: if the zoo has no training runs, or the data of a task is not on this machine.
    """
    out, begin = _target(out, force), time.perf_counter()
    opened = Zoo.open(zoo)
    training = IGPGTraining(LoopConfig(steps), seed=seed)
    loaded, folder = BehaviouralTokenizer.from_pretrained(tokenizer), shelf("tokenizers", tokenizer).resolve()
    igpg = train_igpg(
        _training_cells(opened), loaded, PriorConfig(), training,
        zoo={"name": _name(opened), "digest": opened.digest},
        place={"name": folder.name, "path": Path(os.path.relpath(folder, out.resolve())).as_posix()},
        state=out / STATE, progress=progress,
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    known = "\n".join(
        f"| {task} | `{cell['architecture']}` | {cell['parameters']:,} | {cell['networks']} "
        f"| {100 * cell['accuracy']:.2f} |"
        for task, cells in igpg.provenance["cells"].items()
        for cell in cells
    )
    places = f"--zoo {_told(zoo)} --tokenizer {_told(tokenizer)} --out {_told(out)}"
    command = f"weightgen train igpg {places} --steps {steps} --seed {seed}"
    card = f"""# {out.name}: an IGPG generator

Writes networks from an instruction, token by token; {_parameters(igpg.prior)} parameters in the prior,
{_parameters(igpg.encoder)} in the instruction encoder, trained in {seconds / 60:.0f} minutes on the codes of the zoo
{_name(opened)} (digest {opened.digest}) under the tokenizer of id {loaded.provenance["id"]}:

    {command}

| task | architecture | parameters | training networks | their test accuracy, % |
|---|---|---|---|---|
{known}

How good and how new its networks are: `scripts/benchmarks/starter`, whose results stand in the README.
"""
    igpg.save_pretrained(out, card)
    return f"{out}: trained in {seconds:.0f} s"


def _told(place: Path | str) -> str:
    """A place as a card may tell it: those of this machine by their last two parts."""
    return str(place) if not Path(place).is_absolute() else Path(*Path(place).parts[-2:]).as_posix()


def _target(out: Path | str, force: bool) -> Path:
    out = Path(out)
    if (out / MODEL).exists() and not force:
        raise OutputError(
            "there is one already", where=out, remedy="choose another folder, or overwrite it with --force"
        )
    return out


def _training_cells(zoo: Zoo) -> list[Cell]:
    cells = zoo_cells(zoo)
    if not cells:
        raise MissingDataError("the zoo has no training runs", where=zoo.path, remedy="weightgen zoo train RECIPE.toml")
    return cells


def _parameters(module: torch.nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in module.parameters()):,}"


def _name(zoo: Zoo) -> str:
    return zoo.path.resolve().name


def _row(tokenizer: BehaviouralTokenizer, cell: Cell) -> str:
    images, labels = get_task(cell.task).test()
    decoded = tokenizer.decode_batch(
        tokenizer.encode_batch(cell.tensors, cell.architecture, cell.task), cell.architecture
    )
    before, after = (
        100 * (population_predictions(cell.architecture, tensors, images) == labels).double().mean().item()
        for tensors in (dict(cell.tensors), decoded)
    )
    return (
        f"| {cell.task} | `{cell.architecture}` | {len(cell.ids)} | {before:.2f} "
        f"| {after:.2f} | {tokenizer.bits_per_weight(cell.architecture):.2f} |"
    )
