"""generate(): from an instruction to working networks."""

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from weightgen.artefact import CONFIG
from weightgen.errors import CorruptFileError, InstructionError, MissingDataError, UnknownNameError, WeightgenError
from weightgen.instructions import VOCABULARY, Candidate, Request, choose, resolve
from weightgen.shelf import shelf

if TYPE_CHECKING:
    from weightgen.checkpoint import Checkpoint
    from weightgen.generators.igpg import IGPG, Sampling
    from weightgen.tasks import Task
    from weightgen.zoo import Zoo

DEFAULT = "starter"
FLOOR_DRAWS = 8
"""How many networks are drawn at most to reach an accuracy that was asked for."""
REFINE_RATE = 1e-3

Show = Callable[[str], None]


@dataclass(frozen=True)
class Generated:
    """One generated network and what is known of it.

    Args:
        checkpoint: the network; its Card holds all of the following too.
        accuracy: on the task's test split; None where its data is not on this machine.
        novelty: `distance_ratio`, `error_iou`, `token_replay`; each None where it cannot be known.
        seconds: from the loaded generator to the measured network, its share of the batch.
    """

    checkpoint: "Checkpoint"
    accuracy: float | None
    novelty: dict[str, float | None]
    seconds: float


@dataclass(frozen=True)
class Generation:
    """All that came of one request.

    Args:
        request: what was understood, the architecture chosen.
        networks: in the order in which they were drawn.
        zoo_accuracy: mean test accuracy of the networks that the generator learned from.
        zoo_count: how many those are.
        notes: what could not be done, in words.
    """

    request: Request
    networks: list[Generated]
    zoo_accuracy: float | None
    zoo_count: int
    notes: list[str]


def understand(
    prompt: str, task: str | None = None, architecture: str | None = None, generator: Path | str = DEFAULT
) -> Request:
    """What a prompt asks of a generator, with the architecture that fits it best; torch is not needed for this.

    Raises:
        InstructionError: for a prompt that cannot be understood or met; it lists the near choices.
        UnknownNameError: if there is no such generator.
        CorruptFileError: if its config is damaged.
    """
    cells = _cells(generator)
    request = resolve(prompt, VOCABULARY, task=task, architecture=architecture)
    if request.task not in cells:
        raise InstructionError(
            f"the generator '{generator}' writes no networks for the task {request.task}",
            expected=f"one of: {', '.join(sorted(cells))}", remedy="train a generator on a zoo of that task",
        )  # fmt: skip
    known = [
        Candidate(cell.architecture, cell.family, cell.parameters, cell.depth, cell.accuracy)
        for cell in cells[request.task]
    ]
    if request.architecture is None:
        return dataclasses.replace(request, architecture=choose(request, known)[0].architecture)
    return dataclasses.replace(request, architecture=_given(request, request.architecture, known))


def generate(
    prompt: str,
    *,
    task: str | None = None,
    architecture: str | None = None,
    num: int = 1,
    seed: int = 0,
    best_of: int = 1,
    refine: int = 0,
    generator: Path | str = DEFAULT,
    sampling: "Sampling | None" = None,
) -> "list[Checkpoint]":
    """Networks for an instruction, each with its accuracy and novelty on its Card.

    Args:
        prompt: e.g. `"a small convolutional network that reads handwritten digits, under 5k parameters"`.
        task: the task, where the prompt should not decide it.
        architecture: the recipe, likewise.
        num: how many networks.
        seed: the same seed gives the same networks.
        best_of: networks drawn for each one kept; the one with the highest validation accuracy is.
        refine: training steps of batch 64 on the task after sampling.
        generator: a folder, or a name on the shelf.
        sampling: temperature and top-p.

    Raises:
        InstructionError: for a prompt that cannot be understood or met.
        MissingDataError: if `best_of`, `refine` or an accuracy floor needs data that is not on this machine.
    """
    request = understand(prompt, task, architecture, generator)
    result = run(request, num=num, seed=seed, best_of=best_of, refine=refine, generator=generator, sampling=sampling)
    return [network.checkpoint for network in result.networks]


def run(
    request: Request,
    *,
    num: int = 1,
    seed: int = 0,
    best_of: int = 1,
    refine: int = 0,
    generator: Path | str = DEFAULT,
    sampling: "Sampling | None" = None,
    show: Show = lambda text: None,
) -> Generation:
    """As `generate`, for a Request of `understand`, with everything that was measured.

    Args:
        show: called with a line for each stage.
    """
    for name, value, least in (("num", num, 1), ("best_of", best_of, 1), ("refine", refine, 0)):
        if value < least:
            raise WeightgenError(f"{name} is too small", got=value, expected=f"at least {least}")
    from weightgen.generators.igpg import IGPG

    show("loading the generator")
    igpg = IGPG.from_pretrained(generator)
    begin = time.perf_counter()
    task, notes = _task_with_data(request, needed=best_of > 1 or refine > 0 or _floor(request) is not None)
    draws = best_of if _floor(request) is None else max(best_of, FLOOR_DRAWS)
    show(f"sampling {num * draws} network{'s' if num * draws > 1 else ''}")
    networks = igpg.sample(request, num * draws, seed, sampling)
    if draws > 1:
        networks = _select(networks, task, num, draws)
    if refine:
        show(f"refining for {refine} steps")
        networks = _refine(networks, task, refine, seed)
    _check(networks, request, task)
    show("measuring")
    cell = next(cell for cell in _cells(generator)[request.task] if cell.architecture == request.architecture)
    accuracies = _accuracies(networks, task)
    novelties, more = _novelties(igpg, generator, networks, task, request)
    notes += more
    seconds = (time.perf_counter() - begin) / num
    budget = {"best_of": draws, "selected_on": "validation" if draws > 1 else None, "refine": refine}
    generated = [
        Generated(_with_card(network, task, accuracy, novelty, budget), accuracy, novelty, seconds)
        for network, accuracy, novelty in zip(networks, accuracies, novelties, strict=True)
    ]
    return Generation(request, generated, cell.accuracy, cell.networks, notes)


def run_condition(generator: Path | str, condition: list[str]) -> Generation:
    """The network of a hypernetwork at a condition such as `["rotation=30"]`, measured as the condition asks.

    Raises:
        UnknownNameError: if there is no such generator or condition.
        WeightgenError: for a condition out of its range.
        CorruptFileError: if the generator is damaged, or no hypernetwork.
    """
    from weightgen.generators.hypernetwork_generator import HypernetworkGenerator

    loaded = HypernetworkGenerator.from_pretrained(generator)
    begin = time.perf_counter()
    network = loaded.condition(loaded.read(condition))
    request = Request(" ".join(condition), loaded.task, str(loaded.architecture))
    task, notes = _task_with_data(request, needed=False)
    _check([network], request, task)
    accuracy = None
    if task is not None:
        from weightgen.checkpoint import Metric
        from weightgen.tasks import evaluate

        changed = loaded.task_at(network.card.made_with["condition"])
        accuracy = evaluate(network.build(), changed)["metrics"]["accuracy"]
        metric = Metric("accuracy", accuracy, "test", changed.digest)
        network = network.replace_card(metrics=(metric,))
    unknown: dict[str, float | None] = {"distance_ratio": None, "error_iou": None, "token_replay": None}
    generated = Generated(network, accuracy, unknown, time.perf_counter() - begin)
    return Generation(request, [generated], None, 0, notes)


class _Cell(NamedTuple):
    """One task and architecture that a generator knows, as its config describes it."""

    architecture: str
    family: str
    parameters: int
    depth: int
    accuracy: float
    networks: int


def _cells(generator: Path | str) -> dict[str, list[_Cell]]:
    """Task → what the generator can write for it, from its config alone."""
    folder = shelf("checkpoints", generator)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if config["kind"] == "hypernetwork":
            raise InstructionError(
                "a hypernetwork is not asked in words", where=generator, expected=", ".join(config["space"]["entries"]),
                remedy="give --condition NAME=VALUE",
            )  # fmt: skip
        cells = config["provenance"]["cells"]
        return {
            task: [_Cell(*(entry[name] for name in _Cell._fields)) for entry in entries]
            for task, entries in cells.items()
        }
    except OSError as error:
        raise MissingDataError("no generator there", where=folder, expected=CONFIG) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptFileError("the config cannot be read", where=folder / CONFIG, remedy="fetch it again") from error


def _given(request: Request, recipe: str, known: list[Candidate]) -> str:
    """The known recipe that equals the given one, once the task's input shape is filled in."""
    from weightgen.architecture import Architecture

    wanted = Architecture.parse(recipe)
    for candidate in known:
        architecture = Architecture.parse(candidate.architecture)
        if architecture == wanted or architecture == wanted.replace(input=architecture.option("input")):
            chosen = dataclasses.replace(request, architecture=candidate.architecture)
            return choose(chosen, [candidate])[0].architecture
    raise InstructionError(
        f"the generator writes no '{wanted}' for the task {request.task}",
        expected="one of: " + ", ".join(candidate.architecture for candidate in known),
    )


def _floor(request: Request) -> float | None:
    return request.constraints.minimum_accuracy


def _task_with_data(request: Request, needed: bool) -> "tuple[Task | None, list[str]]":
    """The task if its data is there; None with a note if it is not and can be done without."""
    from weightgen.tasks import get_task

    task = get_task(request.task)
    try:
        task.test()
    except MissingDataError as error:
        if needed:
            raise
        return None, [f"not evaluated: {error}"]
    return task, []


def _select(networks: "list[Checkpoint]", task: "Task | None", num: int, draws: int) -> "list[Checkpoint]":
    """Of each `draws` networks in a row the one that is best on validation data."""
    assert task is not None
    from weightgen.training.population import population_predictions, stack

    images, labels = task.validation()
    tensors = stack([network.state_dict() for network in networks])
    right = (population_predictions(networks[0].architecture, tensors, images) == labels).double().mean(1)
    best = right.view(num, draws).argmax(1)
    return [networks[index * draws + int(place)] for index, place in enumerate(best)]


def _refine(networks: "list[Checkpoint]", task: "Task | None", steps: int, seed: int) -> "list[Checkpoint]":
    from weightgen.checkpoint import Checkpoint
    from weightgen.training.population import Run, Schedule, stack, train_population, unstack

    assert task is not None
    runs = [Run(seed + index, REFINE_RATE, 0.0) for index in range(len(networks))]
    start = stack([network.state_dict() for network in networks])
    architecture = networks[0].architecture
    trained = train_population(architecture, task, runs, Schedule(steps), start=start)
    return [
        Checkpoint(architecture, tensors, dataclasses.replace(network.card, origin="refined", parents=(network.id,)))
        for tensors, network in zip(unstack(trained), networks, strict=True)
    ]


def _check(networks: "list[Checkpoint]", request: Request, task: "Task | None") -> None:
    """No network leaves with a NaN, or below an accuracy that was asked for."""
    for network in networks:
        if broken := network.non_finite():
            raise WeightgenError("a generated network holds NaN or infinity", where=broken[0], remedy="report this")
    floor = _floor(request)
    if floor is None:
        return
    assert task is not None
    from weightgen.tasks import evaluate

    for network in networks:
        reached = evaluate(network.build(), task, "validation")["metrics"]["accuracy"]
        if reached < floor:
            raise WeightgenError(
                "no network reached the accuracy asked for", where=f"the validation data of {task.name}",
                got=f"{100 * reached:.2f} %", expected=f"at least {100 * floor:.6g} %",
                remedy="lower it, add --refine 50, or choose another architecture",
            )  # fmt: skip


def _accuracies(networks: "list[Checkpoint]", task: "Task | None") -> list[float | None]:
    if task is None:
        return [None] * len(networks)
    from weightgen.tasks import evaluate

    return [evaluate(network.build(), task)["metrics"]["accuracy"] for network in networks]


def _novelties(
    igpg: "IGPG", generator: Path | str, networks: "list[Checkpoint]", task: "Task | None", request: Request
) -> tuple[list[dict[str, float | None]], list[str]]:
    """Novelty against the networks the generator learned from, where its zoo is at hand."""
    from weightgen.evaluation.novelty import measure_novelty, token_replay
    from weightgen.training.population import population_predictions, stack

    architecture = networks[0].architecture
    try:
        remembered = igpg.remembered[f"{request.task}|{architecture}"]
        reference = remembered.reference(_zoo(igpg, generator), str(architecture))
    except MissingDataError as error:
        unknown = {"distance_ratio": None, "error_iou": None, "token_replay": None}
        return [dict(unknown) for _ in networks], [f"novelty not measured: {error}"]
    tensors = stack([network.state_dict() for network in networks])
    codes = igpg.tokenizer.encode_batch(tensors, architecture, request.task)
    # Without the header, which says only the task.
    replay = token_replay(codes[:, 1:], remembered.codes[:, 1:])
    if task is None:
        import torch

        errors = torch.zeros(len(networks), reference.errors.shape[1], dtype=torch.bool)
    else:
        images, labels = (part[: reference.errors.shape[1]] for part in task.test())
        errors = population_predictions(architecture, tensors, images) != labels
    novelty = measure_novelty(reference, tensors, errors)
    return [
        {
            "distance_ratio": novelty.distance_ratio[index].item(),
            "error_iou": novelty.error_iou[index].item() if task is not None else None,
            "token_replay": replay[index].item(),
        }
        for index in range(len(networks))
    ], []


def _zoo(igpg: "IGPG", generator: Path | str) -> "Zoo":
    """The zoo that a generator learned from, on the shelf beside its own or on that of weightgen."""
    from weightgen.zoo import Zoo

    name = igpg.provenance["zoo"]["name"]
    beside = shelf("checkpoints", generator) / "../../zoo" / name
    try:
        return Zoo.open(beside if beside.is_dir() else name)
    except UnknownNameError as error:
        raise MissingDataError("the zoo that the generator learned from is not here", where=name) from error


def _with_card(
    network: "Checkpoint", task: "Task | None", accuracy: float | None, novelty: dict, budget: dict
) -> "Checkpoint":
    from weightgen.checkpoint import Metric

    metrics = () if task is None or accuracy is None else (Metric("accuracy", accuracy, "test", task.digest),)
    made_with = {**network.card.made_with, **budget, "novelty": novelty}
    return network.replace_card(metrics=metrics, made_with=made_with)
