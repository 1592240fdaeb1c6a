"""Recipes: a TOML file that says which populations of networks to train into a zoo."""

import dataclasses
import hashlib
import json
import statistics
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import weightgen
from weightgen.architecture import Architecture
from weightgen.checkpoint import SPLITS, Card, Checkpoint, Metric
from weightgen.errors import MissingDataError, RecipeError, WeightgenError
from weightgen.families import families
from weightgen.registry import unknown_name
from weightgen.storage import write_text
from weightgen.zoo.catalogue import FILE_NAME
from weightgen.zoo.zoo import Row, Zoo

if TYPE_CHECKING:
    from weightgen.tasks import Task
    from weightgen.training.population import Run

DTYPES = ("float32", "float16", "bfloat16")
STATE = ".state"

Progress = Callable[[int, int, str], None]
"""Called with the steps done, the steps in all, and what is being trained."""


@dataclass(frozen=True)
class Population:
    """Networks of one architecture and task that differ by seed, learning rate and weight decay.

    Args:
        task: name of the Task.
        architecture: the recipe, with the task's `input` and `classes` filled in.
        networks: how many.
        first_seed: seed of the first; the others follow.
        learning_rate: the range from which each network's rate is drawn, log-uniformly, by its seed.
        weight_decay: likewise.
        steps: optimiser steps.
        batch: images a network sees in a step.
        dtype: the kind the weights are stored in; metrics are measured on the stored weights.
        split: shares of the runs that are for training, validation and test of what learns from the zoo.
    """

    task: str
    architecture: Architecture
    networks: int
    first_seed: int
    learning_rate: tuple[float, float]
    weight_decay: tuple[float, float]
    steps: int
    batch: int
    dtype: str
    split: tuple[float, float, float]

    @property
    def digest(self) -> str:
        """A hash of all settings."""
        settings = {**dataclasses.asdict(self), "architecture": str(self.architecture)}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        """A short name such as `digits-mlp-32`: task, family, sizes and what else is not the family's default."""
        family = self.architecture.family
        words = [self.task.replace("/", "-"), family.rpartition("/")[2]]
        size = next(name for name in ("hidden", "channels") if name in families[family].defaults)
        value = self.architecture.option(size)
        words += [str(width) for width in value] if isinstance(value, tuple) else [str(value)]
        for name, value in self.architecture.options:
            if name not in (size, "input", "classes"):
                words.append(value if isinstance(value, str) else f"{name}{value}")
        return "-".join(words)

    @property
    def seeds(self) -> range:
        return range(self.first_seed, self.first_seed + self.networks)

    def run_id(self, seed: int) -> str:
        return f"{self.task}/{self.architecture}/seed-{seed}"

    def runs(self) -> "list[Run]":
        """The runs, each with a rate and a decay drawn by its own seed."""
        import numpy

        from weightgen.training.population import Run

        drawn = []
        for seed in self.seeds:
            # `RandomState` never changes its stream.
            random = numpy.random.RandomState(seed)
            drawn.append(Run(seed, *(_log_uniform(random.rand(), *r) for r in (self.learning_rate, self.weight_decay))))
        return drawn

    def splits(self) -> list[str]:
        """For each run the part of the zoo it belongs to; shuffled, and always the same."""
        import numpy

        train, validation, _ = self.split
        first, second = round(self.networks * train), round(self.networks * (train + validation))
        parts = [SPLITS[(place >= first) + (place >= second)] for place in range(self.networks)]
        order = numpy.random.RandomState(self.first_seed).permutation(self.networks)
        return [parts[place] for place in order]


@dataclass(frozen=True)
class Recipe:
    """A zoo's name and its populations; `digest` is a hash of the file's text."""

    name: str
    populations: tuple[Population, ...]
    text: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


def read_recipe(path: Path | str) -> Recipe:
    """Reads and checks a recipe.

    Raises:
        MissingDataError: if there is no such file.
        RecipeError: for an entry that is unknown, missing or impossible; it says where.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except OSError as error:
        raise MissingDataError("cannot read the recipe", where=path, got=error.strerror) from error
    except ValueError as error:
        raise RecipeError("not a TOML file", where=path, got=str(error)) from error
    _check_names(content, {"name", "population"}, {"name", "population"}, str(path))
    name, tables = content["name"], content["population"]
    if not isinstance(name, str) or not name:
        raise RecipeError("a wrong entry", where=f"{path}: name", got=repr(name), expected="a text")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise RecipeError("no populations", where=path, expected="one or more [[population]] tables")
    populations = [_population(table, f"{path}: population {index}") for index, table in enumerate(tables, 1)]
    taken: dict[str, int] = {}
    for index, population in enumerate(populations, 1):
        for seed in population.seeds:
            if population.run_id(seed) in taken:
                raise RecipeError(
                    "two populations hold the same run",
                    where=f"{path}: population {index}",
                    got=population.run_id(seed),
                    expected=f"seeds that population {taken[population.run_id(seed)]} has not",
                    remedy="change first_seed",
                )
            taken[population.run_id(seed)] = index
    return Recipe(name, tuple(populations), text)


def train_recipe(path: Path | str, zoo_path: Path | str, progress: Progress | None = None) -> Zoo:
    """Trains the populations of a recipe into the zoo at `zoo_path`, which is made if it is not there.

    Populations whose runs are in the zoo are passed over, and one that was interrupted goes on from its last saved
    state, so the same call finishes what a killed one began, with the same result.

    Raises:
        RecipeError: for an impossible recipe, or runs that are in the zoo with other settings.
        MissingDataError: if the data of a task is not on this machine.
        OutputError: if the zoo cannot be written.
    """
    recipe = read_recipe(path)
    folder = Path(zoo_path)
    zoo = Zoo(folder) if (folder / FILE_NAME).exists() else Zoo.create(folder)
    unfinished = [population for population in recipe.populations if not _is_finished(population, zoo)]
    total, done = sum(population.steps for population in unfinished), 0
    write_text(folder / "recipe.toml", recipe.text)
    for population in unfinished:
        before, label = done, population.label

        def step(steps: int, loss: float, before: int = before, label: str = label) -> None:
            if progress is not None:
                progress(before + steps, total, f"{label}, loss {loss:.3f}")

        _train(population, recipe, f"weightgen zoo train {Path(path).name}", zoo, step)
        done += population.steps
    write_text(folder / "README.md", _readme(recipe, zoo, f"weightgen zoo train {Path(path).name}"))
    return zoo


def _is_finished(population: Population, zoo: Zoo) -> bool:
    from weightgen.tasks import get_task

    preprocessing = dataclasses.asdict(get_task(population.task).preprocessing)
    wanted = {population.run_id(seed) for seed in population.seeds}
    found = [row for row in zoo.query() if row.run in wanted]
    for row in found:
        if row.card.made_with.get("population") != population.digest or row.card.preprocessing != preprocessing:
            raise RecipeError(
                "the zoo holds this run with other settings",
                where=zoo.path,
                got=row.run,
                remedy="train into another folder, or give the population other seeds",
            )
    return {row.run for row in found} == wanted


def _train(population: Population, recipe: Recipe, command: str, zoo: Zoo, step: Callable[[int, float], None]) -> None:
    from weightgen.tasks import get_task
    from weightgen.training.population import Schedule, train_population, unstack

    task = get_task(population.task)
    state = zoo.path / STATE / f"{population.digest}.safetensors"
    tensors = train_population(
        population.architecture, task, population.runs(), Schedule(population.steps, population.batch),
        state=state, progress=step,
    )  # fmt: skip
    made_with = {
        "command": command,
        "recipe": recipe.digest,
        "population": population.digest,
        "code": weightgen.__version__,
    }
    checkpoints = [
        _measured(population, task, tensors, run, split, made_with)
        for tensors, run, split in zip(unstack(tensors), population.runs(), population.splits(), strict=True)
    ]
    digits = max(3, len(str(population.seeds[-1])))
    zoo.add(checkpoints, name=[f"{population.label}-s{seed:0{digits}d}" for seed in population.seeds])
    state.unlink(missing_ok=True)
    if state.parent.is_dir() and not any(state.parent.iterdir()):
        state.parent.rmdir()


def _measured(
    population: Population, task: "Task", tensors: dict, run: "Run", split: str, made_with: Mapping[str, str]
) -> Checkpoint:
    """The network as it will be stored, with a Card whose metrics are those of the stored weights."""
    import torch

    from weightgen.tasks import evaluate

    kind = getattr(torch, population.dtype)
    stored = {name: tensor.to(kind) for name, tensor in tensors.items()}
    module = Checkpoint(population.architecture, stored).build()
    metrics = tuple(
        Metric("accuracy", evaluate(module, task, part)["metrics"]["accuracy"], part, task.digest)
        for part in ("test", "validation")
    )
    card = Card(
        task=task.name,
        metrics=metrics,
        hyperparameters={
            "learning_rate": run.learning_rate,
            "weight_decay": run.weight_decay,
            "steps": population.steps,
            "batch": population.batch,
            "seed": run.seed,
            "optimizer": "adamw",
        },
        origin="trained",
        run=population.run_id(run.seed),
        split=split,
        preprocessing=dataclasses.asdict(task.preprocessing),
        made_with={**made_with, "seed": run.seed, "torch": torch.__version__},
    )
    return Checkpoint(population.architecture, stored, card)


def _readme(recipe: Recipe, zoo: Zoo, command: str) -> str:
    by_run = {row.run: row for row in zoo.query()}
    lines = []
    for population in recipe.populations:
        rows: list[Row] = [by_run[population.run_id(seed)] for seed in population.seeds]
        accuracies = [row.metrics["accuracy"] for row in rows]
        counts = " / ".join(str(sum(row.split == split for row in rows)) for split in SPLITS)
        lines.append(
            f"| {population.task} | `{population.architecture}` | {rows[0].parameters:,} | {len(rows)} | {counts} "
            f"| {100 * statistics.mean(accuracies):.2f} ± {100 * statistics.pstdev(accuracies):.2f} "
            f"| {100 * min(accuracies):.2f} – {100 * max(accuracies):.2f} | {population.dtype} |"
        )
    table = "\n".join(lines)
    return f"""# {recipe.name}: a zoo of {len(zoo):,} trained networks

| task | architecture | parameters | networks | train / validation / test | test accuracy, % | range, % | stored as |
|---|---|---|---|---|---|---|---|
{table}

Accuracy is measured on the stored weights, on the task's test split: mean ± standard deviation over the networks.
The parts train / validation / test are of training runs; what learns from this zoo sees the train part only.

Made by `{command}` with weightgen {weightgen.__version__}; the recipe is `recipe.toml` (hash {recipe.digest}).
Digest of the zoo: {zoo.digest}.
"""


def _log_uniform(share: float, low: float, high: float) -> float:
    return low if low == high else float(low * (high / low) ** share)


_DEFAULTS: dict[str, Any] = {
    "first_seed": 0,
    "learning_rate": 1e-3,
    "weight_decay": 1e-4,
    "batch": 64,
    "dtype": "float32",
    "split": [0.8, 0.1, 0.1],
}
_REQUIRED = {"task", "architecture", "networks", "steps"}


def _population(table: dict[str, Any], where: str) -> Population:
    _check_names(table, {*_DEFAULTS, *_REQUIRED}, _REQUIRED, where)
    entries = {**_DEFAULTS, **table}
    for name, least, most in (
        ("networks", 1, 100_000), ("steps", 1, 10_000_000), ("batch", 1, 100_000), ("first_seed", 0, 2**31)
    ):  # fmt: skip
        value = entries[name]
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise _impossible(f"{where}: {name}", value, f"a whole number of {least:,} to {most:,}")
    if entries["dtype"] not in DTYPES:
        raise _impossible(f"{where}: dtype", entries["dtype"], ", ".join(DTYPES))
    split = entries["split"]
    if (
        not isinstance(split, list) or len(split) != 3 or not all(map(_is_number, split))
        or abs(sum(split) - 1) > 1e-6
    ):  # fmt: skip
        raise _impossible(f"{where}: split", split, "three shares that sum to 1, such as [0.8, 0.1, 0.1]")
    return Population(
        task=entries["task"],
        architecture=_architecture(entries["task"], entries["architecture"], where),
        networks=entries["networks"],
        first_seed=entries["first_seed"],
        learning_rate=_range(entries["learning_rate"], f"{where}: learning_rate", may_be_zero=False),
        weight_decay=_range(entries["weight_decay"], f"{where}: weight_decay", may_be_zero=True),
        steps=entries["steps"],
        batch=entries["batch"],
        dtype=entries["dtype"],
        split=(float(split[0]), float(split[1]), float(split[2])),
    )


def _architecture(task_name: object, text: object, where: str) -> Architecture:
    """The architecture with the task's input and classes, which it may leave out but not contradict."""
    from weightgen.tasks import get_task

    for name, value in (("task", task_name), ("architecture", text)):
        if not isinstance(value, str):
            raise _impossible(f"{where}: {name}", value, "a text")
    try:
        task = get_task(str(task_name))
        architecture = Architecture.parse(str(text))
        # Populations are trained as pure functions of their weights, which running statistics are not.
        trainable = [family for family in families if family != "weightgen/resnet"]
        if architecture.family not in trainable:
            raise RecipeError(
                "a population cannot be of this family", got=architecture.family, expected=", ".join(trainable)
            )
        given = {part.partition("=")[0] for part in str(text).partition("?")[2].split("&")}
        for name, value in (("input", task.input), ("classes", len(task.classes))):
            if name in given and architecture.option(name) != value:
                raise RecipeError(
                    f"the option '{name}' does not fit the task {task.name}",
                    got=architecture.option(name),
                    expected=value,
                    remedy="leave it out",
                )
            architecture = architecture.replace(**{name: value})
        architecture.parameter_shapes()
    except WeightgenError as error:
        raise RecipeError(str(error), where=where) from error
    return architecture


def _range(value: Any, where: str, may_be_zero: bool) -> tuple[float, float]:
    """One number, or the two ends of a range that is drawn from log-uniformly."""
    ends = value if isinstance(value, list) else [value, value]
    if len(ends) != 2 or not all(map(_is_number, ends)) or ends[0] > ends[1]:
        raise _impossible(where, value, "a number, or [least, greatest]")
    if ends[0] == 0 and not (may_be_zero and ends[1] == 0):
        raise _impossible(where, value, "numbers above 0")
    return float(ends[0]), float(ends[1])


def _is_number(value: Any) -> bool:
    """A finite number of 0 or more."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e9


def _impossible(where: str, got: object, expected: str) -> RecipeError:
    return RecipeError("an impossible entry", where=where, got=repr(got), expected=expected)


def _check_names(table: Mapping[str, Any], known: set[str], required: set[str], where: str) -> None:
    for name in table:
        if name not in known:
            raise RecipeError(str(unknown_name("entry", name, known)), where=where)
    for name in sorted(required - set(table)):
        raise RecipeError(f"the entry '{name}' is missing", where=where)
