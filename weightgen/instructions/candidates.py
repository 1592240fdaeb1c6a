"""choose(): which of the networks that can be had fit a Request."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from weightgen.errors import InstructionError
from weightgen.instructions.request import FAMILY_TEXTS, Request, describe_limits

DEFAULT_ACTIVATION = "relu"
"""The activation of a weightgen recipe that names none."""


@dataclass(frozen=True)
class Candidate:
    """A kind of network that can be had.

    Args:
        architecture: its recipe.
        family: `mlp`, `cnn` or another.
        parameters: its trainable values.
        depth: its hidden layers (mlp) or convolutions (cnn).
        accuracy_mean: the accuracy that networks of the kind have, 0…1; None if unknown.
    """

    architecture: str
    family: str
    parameters: int
    depth: int
    accuracy_mean: float | None = None

    @property
    def activation(self) -> str:
        options = dict(part.partition("=")[::2] for part in self.architecture.partition("?")[2].split("&"))
        return options.get("activation", DEFAULT_ACTIVATION)


def choose(request: Request, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that meet every constraint of a Request, best fit first.

    A request for few (many) layers puts those with the fewest (most) first; then a small size those with the fewest
    parameters, a large one those with the most, and no size those nearest the middle of what was asked for.

    Raises:
        InstructionError: if none does; it names the constraint and the nearest that can be had.
    """
    if not candidates:
        raise InstructionError("there is no network to choose from", where=f"task {request.task}")
    fitting = list(candidates)
    met: list[str] = []
    for label, fits, nearest in _filters(request):
        kept = [candidate for candidate in fitting if fits(candidate)]
        if not kept:
            raise InstructionError(
                f"no network can be had with {label}",
                where=", ".join([f"task {request.task}", *met]),
                expected=nearest(fitting),
            )
        fitting = kept
        met.append(label)
    constraints = request.constraints
    bounds = (constraints.minimum_parameters, constraints.maximum_parameters)
    if bounds[0] is not None and bounds[1] is not None:
        middle = (bounds[0] + bounds[1]) / 2
    else:
        middle = statistics.median(candidate.parameters for candidate in fitting)

    def fit(candidate: Candidate) -> tuple[float, float, float, str]:
        layers = {"fewest": candidate.depth, "most": -candidate.depth}.get(constraints.layering or "", 0)
        size = {"small": candidate.parameters, "large": -candidate.parameters}.get(
            constraints.size or "", abs(candidate.parameters - middle)
        )
        return layers, size, -(candidate.accuracy_mean or 0), candidate.architecture

    return sorted(fitting, key=fit)


_Filter = tuple[str, Callable[[Candidate], bool], Callable[[list[Candidate]], str]]


def _filters(request: Request) -> list[_Filter]:
    """(what is asked, who has it, what is nearest to it) for each constraint that was stated."""
    asked = request.constraints
    low, high = asked.minimum_parameters, asked.maximum_parameters
    filters: list[_Filter] = []
    if request.architecture is not None:
        filters.append(
            (
                f"architecture {request.architecture}",
                lambda one: one.architecture == request.architecture,
                lambda pool: _one_of(one.architecture for one in pool),
            )
        )
    if asked.family is not None:
        filters.append(
            (
                FAMILY_TEXTS[asked.family],
                lambda one: one.family == asked.family,
                lambda pool: _one_of(FAMILY_TEXTS.get(one.family, one.family) for one in pool),
            )
        )
    if asked.activation is not None:
        filters.append(
            (
                f"{asked.activation} activation",
                lambda one: one.activation == asked.activation,
                lambda pool: _one_of(one.activation for one in pool),
            )
        )
    if asked.depth is not None:
        filters.append(
            (
                f"{asked.depth} layer{'' if asked.depth == 1 else 's'}",
                lambda one: one.depth == asked.depth,
                lambda pool: _one_of(one.depth for one in pool) + " layers",
            )
        )
    if high is not None:
        filters.append(
            (
                str(describe_limits(None, high)),
                lambda one: one.parameters <= high,
                lambda pool: f"the smallest is {min(one.parameters for one in pool):,} parameters",
            )
        )
    if low is not None:
        filters.append(
            (
                str(describe_limits(low, None)),
                lambda one: one.parameters >= low,
                lambda pool: f"the largest is {max(one.parameters for one in pool):,} parameters",
            )
        )
    if asked.minimum_accuracy is not None:
        floor = asked.minimum_accuracy
        filters.append(
            (
                f"at least {100 * floor:.6g} % accuracy",
                lambda one: one.accuracy_mean is not None and one.accuracy_mean >= floor,
                _best,
            )
        )
    return filters


def _best(pool: list[Candidate]) -> str:
    known = [one.accuracy_mean for one in pool if one.accuracy_mean is not None]
    return f"the best is {100 * max(known):.2f} %" if known else "a floor on no accuracy: none was measured"


def _one_of(values: object) -> str:
    return "one of: " + ", ".join(map(str, sorted(set(values))))  # type: ignore[call-overload]
