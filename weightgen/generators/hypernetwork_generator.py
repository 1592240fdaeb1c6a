"""A trained hypernetwork as a Generator: conditions in, Checkpoints out."""

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weightgen.architecture import Architecture
from weightgen.artefact import read_artefact, write_artefact
from weightgen.checkpoint import Checkpoint
from weightgen.errors import CorruptFileError, WeightgenError
from weightgen.generators.conditions import Category, ConditionSpace, Text
from weightgen.generators.generator import generators
from weightgen.generators.hypernetwork import Hypernetwork, HypernetworkConfig
from weightgen.generators.targets import select
from weightgen.instructions import Request
from weightgen.tasks import Task, get_task
from weightgen.tasks.changes import changed_task

KIND = "hypernetwork"


@generators.register(KIND)
class HypernetworkGenerator:
    """One task, one architecture, and a network for each condition.

    Args:
        hyper: the hypernetwork, made from a recipe.
        task: the name of the task its networks are for.
        provenance: how it was made.

    Raises:
        WeightgenError: if the hypernetwork was made from a module without a recipe.
    """

    def __init__(self, hyper: Hypernetwork, task: str, provenance: Mapping[str, Any] | None = None) -> None:
        if hyper.architecture is None:
            raise WeightgenError("the network has no recipe, which a generator needs", remedy="make it from one")
        self.hyper, self.task = hyper, task
        self.architecture: Architecture = hyper.architecture
        self.provenance = dict(provenance or {})

    def sample(self, request: Request, num: int = 1, seed: int = 0) -> list[Checkpoint]:
        """Networks of `num` conditions that the seed draws from their ranges.

        Raises:
            WeightgenError: if the request is for another task or architecture, or a condition is a text.
        """
        if request.task != self.task:
            raise WeightgenError("the hypernetwork is for another task", got=request.task, expected=self.task)
        if request.architecture is not None and Architecture.parse(request.architecture) != self.architecture:
            raise WeightgenError(
                "the hypernetwork writes another architecture", got=request.architecture, expected=self.architecture
            )
        drawn = self.hyper.space.draw(num, torch.Generator().manual_seed(seed))
        return [self._network(z, {"seed": seed, "index": index}) for index, z in enumerate(drawn)]

    def condition(self, condition: Any) -> Checkpoint:
        """The network of one condition.

        Raises:
            WeightgenError: for a condition out of its range, of the wrong shape, or for several.
        """
        return self._network(self.hyper.space.values(condition), {})

    def task_at(self, condition: Mapping[str, Any]) -> Task:
        """The task as the condition changes it; the task itself where a zoo was learned from."""
        task = get_task(self.task)
        return task if "zoo" in self.provenance.get("learned_from", {}) else changed_task(task, condition)

    def read(self, texts: list[str]) -> dict[str, Any]:
        """A condition from texts such as `rotation=30`, `place=0.1,0.5` or `style=bold`.

        Raises:
            WeightgenError: for a text of another form.
            UnknownNameError: for a condition that there is not.
        """
        found: dict[str, Any] = {}
        for text in texts:
            name, equals, value = text.partition("=")
            if not equals or name in found:
                raise WeightgenError("cannot read the condition", got=text, expected="NAME=VALUE, each name once")
            spec = self.hyper.space.entries.get(name)
            found[name] = value if spec is None or isinstance(spec, Category | Text) else _numbers(name, value)
        return found

    def save_pretrained(self, folder: Path | str, card: str = "") -> None:
        config = {
            "architecture": str(self.architecture),
            "task": self.task,
            "targets": self.hyper.targets,
            "space": self.hyper.space.to_json(),
            "hypernetwork": asdict(self.hyper.config),
            "provenance": self.provenance,
        }
        # As JSON gives them back: what is read is compared with what was written.
        config["hypernetwork"]["hidden"] = list(self.hyper.config.hidden)
        write_artefact(folder, KIND, config, self.hyper.state_dict(), card)

    @classmethod
    def from_pretrained(cls, name_or_folder: Path | str) -> "HypernetworkGenerator":
        """A saved generator, by folder or by its name on the shelf.

        Raises:
            UnknownNameError: if it is not there.
            CorruptFileError: if a file is damaged or of another kind.
        """
        from weightgen.shelf import shelf

        folder = shelf("checkpoints", name_or_folder)
        config, tensors = read_artefact(folder, KIND)
        try:
            architecture = Architecture.parse(config["architecture"])
            entries = {**config["hypernetwork"], "hidden": tuple(config["hypernetwork"]["hidden"])}
            space = ConditionSpace.from_json(config["space"])
            with torch.random.fork_rng(devices=[]):
                network = architecture.build()
                hyper = Hypernetwork(
                    network, space, select(network, config["targets"]), HypernetworkConfig(**entries), architecture
                )
            hyper.load_state_dict(tensors)
            return cls(hyper.eval(), config["task"], config["provenance"])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise CorruptFileError(
                "not a hypernetwork that this version can read", where=folder, got=str(error)
            ) from error

    def _network(self, z: Tensor, made_with: dict[str, Any]) -> Checkpoint:
        network = self.hyper.weights_at(z)
        told = {**network.card.made_with, "generator": self.provenance.get("id", KIND), **made_with}
        steps = asdict(get_task(self.task).preprocessing)
        card = dataclasses.replace(network.card, task=self.task, preprocessing=steps, made_with=told)
        return Checkpoint(network.architecture, network.state_dict(), card)


def _numbers(name: str, value: str) -> float | list[float]:
    try:
        numbers = [float(part) for part in value.split(",")]
    except ValueError as error:
        raise WeightgenError("not a number", where=f"condition {name}", got=value) from error
    return numbers[0] if len(numbers) == 1 else numbers
