"""From a TOML recipe to a trained hypernetwork on disk, with its card.

    task = "mnist"
    architecture = "weightgen/cnn?channels=8,16&input=1,28,28"
    steps = 2000

    [condition.rotation]        # a change of the images, told in degrees
    low = 0
    high = 180

With `zoo = "NAME"` it learns from that zoo's training runs of the task and architecture instead, and conditions are
figures of their cards: `[condition."metrics.accuracy"]`. Other entries: `batch`, `learning_rate`, `seed`, `rank`,
`chunk`, `hidden`.
"""

import hashlib
import json
import time
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import weightgen
from weightgen.architecture import Architecture
from weightgen.artefact import MODEL
from weightgen.errors import MissingDataError, OutputError, RecipeError
from weightgen.generators.conditions import Spec, spec_from_json
from weightgen.generators.hypernetwork import Hypernetwork, hypernetwork
from weightgen.generators.hypernetwork_generator import HypernetworkGenerator
from weightgen.generators.hypernetwork_training import changed, ends, fit_task, fit_zoo
from weightgen.registry import unknown_name
from weightgen.tasks import Task, get_task
from weightgen.tasks.evaluation import predictions
from weightgen.training.loop import LoopConfig, Progress
from weightgen.zoo import Zoo

STATE = ".state.safetensors"


@dataclass(frozen=True)
class HypernetworkRecipe:
    """What a hypernetwork is made of and learns from; the entries of the file.

    Args:
        task: name of the Task.
        architecture: the recipe of the network.
        condition: name → Spec.
        zoo: name or folder of the zoo it learns from; None for the task itself.
        steps, batch, learning_rate, seed: of the training.
        rank, chunk, hidden: of the hypernetwork.
    """

    task: str
    architecture: str
    condition: Mapping[str, Spec]
    zoo: str | None = None
    steps: int = 2000
    batch: int = 64
    learning_rate: float = 1e-3
    seed: int = 0
    rank: int | None = None
    chunk: int | None = None
    hidden: tuple[int, ...] = (16, 128)

    def __post_init__(self) -> None:
        for name in ("steps", "batch"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise RecipeError("a wrong entry", where=name, got=repr(getattr(self, name)), expected="at least 1")
        if not isinstance(self.learning_rate, int | float) or self.learning_rate <= 0:
            raise RecipeError("a wrong entry", where="learning_rate", got=self.learning_rate, expected="above 0")


def read_recipe(path: Path | str) -> HypernetworkRecipe:
    """Reads and checks a recipe.

    Raises:
        MissingDataError: if there is no such file.
        RecipeError: for an entry that is missing or impossible.
        UnknownNameError: for one that is unknown.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise MissingDataError("cannot read the recipe", where=path, got=error.strerror) from error
    except ValueError as error:
        raise RecipeError("not a TOML file", where=path, got=str(error)) from error
    known = HypernetworkRecipe.__dataclass_fields__
    for name in content:
        if name not in known:
            raise unknown_name(f"entry of {path}", name, known)
    for name in ("task", "architecture", "condition"):
        if not content.get(name):
            raise RecipeError(f"the entry '{name}' is missing", where=path)
    tables = content["condition"]
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise RecipeError("a wrong entry", where=f"{path}: condition", expected="tables [condition.NAME]")
    content["condition"] = {name: spec_from_json(table) for name, table in tables.items()}
    if "hidden" in content:
        content["hidden"] = tuple(content["hidden"])
    return HypernetworkRecipe(**content)


def make_hypernetwork(
    recipe: Path | str, out: Path | str, *, force: bool = False, progress: Progress | None = None
) -> str:
    """Trains a hypernetwork as a recipe says, writes it, and returns a line about it.

    A training that was killed goes on where it was.

    Raises:
        OutputError: if there is one already and `force` is not set.
        RecipeError: for an impossible recipe.
        MissingDataError: if the zoo has no networks for it, or the task's data is not on this machine.
    """
    plan, out, begin = read_recipe(recipe), Path(out), time.perf_counter()
    if (out / MODEL).exists() and not force:
        raise OutputError(
            "there is one already", where=out, remedy="choose another folder, or overwrite it with --force"
        )
    task = get_task(plan.task)
    architecture = _fitted(plan.architecture, task)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        hyper = hypernetwork(architecture, plan.condition, rank=plan.rank, chunk=plan.chunk, hidden=plan.hidden)
        options: dict[str, Any] = {
            "batch": plan.batch, "seed": plan.seed, "state": out / STATE, "progress": progress
        }  # fmt: skip
        loop = LoopConfig(plan.steps, plan.learning_rate, warmup=min(100, plan.steps // 10), weight_decay=0.0)
        learned: dict[str, Any] = {"task": task.name, "digest": task.digest}
        if plan.zoo is None:
            fit_task(hyper, task, loop, **options)
        else:
            zoo = Zoo.open(plan.zoo)
            rows = [
                row for row in zoo.query("split = 'train'")
                if (row.task, row.architecture) == (task.name, str(architecture))
            ]  # fmt: skip
            learned |= {"zoo": zoo.path.resolve().name, "zoo_digest": zoo.digest, "networks": len(rows)}
            fit_zoo(hyper, rows, task, loop, **options)
    provenance = {
        "learned_from": learned, "seed": plan.seed, "batch": plan.batch, "loop": asdict(loop),
        "code": weightgen.__version__, "torch": torch.__version__,
    }  # fmt: skip
    measured = _measured(hyper, task, plan.zoo is None)
    told = json.dumps([provenance, hyper.space.to_json(), str(architecture)], sort_keys=True)
    provenance |= {"id": hashlib.sha256(told.encode()).hexdigest()[:16], "measured": measured}
    seconds = time.perf_counter() - begin
    generator = HypernetworkGenerator(hyper, task.name, provenance)
    generator.save_pretrained(out, _card(generator, out, f"weightgen train hypernetwork {recipe} --out {out}", seconds))
    return f"{out}: trained in {seconds:.0f} s, accuracy " + ", ".join(
        f"{100 * row['accuracy']:.1f} % at {_told(row['condition'])}" for row in measured
    )


def _fitted(recipe: str, task: Task) -> Architecture:
    """The architecture with the task's input and classes, where its family has such options."""
    architecture = Architecture.parse(recipe)
    if not architecture.family.startswith("weightgen/"):
        return architecture
    return architecture.replace(input=task.input, classes=len(task.classes))


@torch.no_grad()
def _measured(hyper: Hypernetwork, task: Task, changes: bool) -> list[dict[str, Any]]:
    """Test accuracy at conditions from one end of the ranges to the other."""
    images, labels = task.test()
    found = []
    for z in ends(hyper.space):
        shown = changed(hyper.space, z, images) if changes else images

        def network(part: Tensor, z: Tensor = z) -> Tensor:
            return hyper.forward_at(z, part)

        right = (predictions(network, shown) == labels).double().mean().item()
        found.append({"condition": hyper.space.describe(z), "accuracy": round(right, 5)})
    return found


def _told(condition: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value}"
                    for name, value in condition.items())  # fmt: skip


def _card(generator: HypernetworkGenerator, out: Path, command: str, seconds: float) -> str:
    learned = generator.provenance["learned_from"]
    source = f"the task {learned['task']} (digest {learned['digest']})"
    if "zoo" in learned:
        source = f"{learned['networks']} networks of the zoo {learned['zoo']} (digest {learned['zoo_digest']})"
    rows = "\n".join(
        f"| {_told(row['condition'])} | {100 * row['accuracy']:.2f} |" for row in generator.provenance["measured"]
    )
    parameters = sum(parameter.numel() for parameter in generator.hyper.parameters())
    if "zoo" in learned:
        meaning = "on the test images of the task"
    else:
        meaning = "on the test images, changed as the condition says"
    return f"""# {out.name}: a hypernetwork

Writes `{generator.architecture}` ({generator.architecture.parameters:,} parameters) for any condition within its
ranges; {parameters:,} parameters in all, trained in {seconds / 60:.1f} minutes on {source}:

    {command}

Accuracy of the networks of some conditions {meaning}:

| condition | accuracy, % |
|---|---|
{rows}
"""
