"""Request: what an instruction asks for, in the library's own words."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from weightgen.errors import InstructionError

FamilyName = Literal["mlp", "cnn"]
Size = Literal["small", "large"]
Layering = Literal["fewest", "most"]

FAMILY_TEXTS: dict[str, str] = {"mlp": "multilayer perceptron (mlp)", "cnn": "convolutional network (cnn)"}


@dataclass(frozen=True)
class Constraints:
    """What a network must satisfy, and what it should rather be; None says nothing.

    Args:
        maximum_parameters: the most parameters it may have, inclusive: "under 5,000" is 4,999.
        minimum_parameters: the fewest it may have, inclusive.
        minimum_accuracy: the least accuracy, in 0…1.
        family: `mlp` or `cnn`.
        depth: the number of hidden layers (mlp) or convolutions (cnn).
        size: whether fewer or more parameters are better among those that fit.
        activation: such as `relu`.
        layering: whether fewer or more layers are better among those that fit ("shallow", "deep").

    Raises:
        InstructionError: if no network at all can meet them.
    """

    maximum_parameters: int | None = None
    minimum_parameters: int | None = None
    minimum_accuracy: float | None = None
    family: FamilyName | None = None
    depth: int | None = None
    size: Size | None = None
    activation: str | None = None
    layering: Layering | None = None

    def __post_init__(self) -> None:
        low, high = self.minimum_parameters, self.maximum_parameters
        if high is not None and high < 1:
            raise InstructionError(
                "no network is that small",
                where="the limit on parameters",
                got=describe_limits(None, high),
                expected="at least 1",
            )
        if low is not None and high is not None and low > high:
            raise InstructionError(
                "the limits on parameters contradict each other",
                got=f"at least {low:,} and at most {high:,}",
                expected="a minimum that is not above the maximum",
            )
        if self.minimum_accuracy is not None and not 0 <= self.minimum_accuracy <= 1:
            raise InstructionError(
                "no network has such an accuracy", got=f"{self.minimum_accuracy:.6g}", expected="0 to 1, or 0 to 100 %"
            )
        if self.depth is not None and self.depth < 0:
            raise InstructionError("a number of layers is not negative", got=str(self.depth))

    def to_json(self) -> dict[str, Any]:
        """Every constraint by its name, null where nothing was said."""
        return asdict(self)

    def describe(self) -> list[str]:
        """One short text for each thing that was said."""
        parts = []
        if self.family:
            parts.append(FAMILY_TEXTS[self.family])
        if self.depth is not None:
            kind = {"mlp": "hidden layer", "cnn": "convolution"}.get(self.family or "", "layer")
            parts.append(f"{self.depth} {kind}{'' if self.depth == 1 else 's'}")
        if limit := describe_limits(self.minimum_parameters, self.maximum_parameters):
            parts.append(limit)
        if self.minimum_accuracy is not None:
            parts.append(f"at least {100 * self.minimum_accuracy:.6g} % accurate")
        if self.activation:
            parts.append(f"{self.activation} activation")
        if self.size:
            parts.append(self.size)
        if self.layering:
            parts.append(f"{self.layering} layers")
        return parts


@dataclass(frozen=True)
class Request:
    """What is asked of a generator.

    Args:
        instruction: the prompt as it was written.
        task: the name of a Task, such as `mnist` or `mnist/3v8`.
        architecture: a recipe, if one was given or chosen.
        constraints: what the network must satisfy.
    """

    instruction: str
    task: str
    architecture: str | None = None
    constraints: Constraints = field(default_factory=Constraints)

    def to_json(self) -> dict[str, Any]:
        """The Request as JSON values."""
        return {
            "instruction": self.instruction,
            "task": self.task,
            "architecture": self.architecture,
            "constraints": self.constraints.to_json(),
        }

    def describe(self) -> str:
        """One line for people: what was understood."""
        architecture = [f"architecture {self.architecture}"] if self.architecture else []
        return "understood: " + " · ".join([f"task {self.task}", *architecture, *self.constraints.describe()])


def describe_limits(low: int | None, high: int | None) -> str | None:
    """Limits on parameters in words; None where there are none."""
    if low is not None and high is not None:
        return f"exactly {low:,} parameters" if low == high else f"{low:,} to {high:,} parameters"
    if high is not None:
        # 4,999 came from "under 5,000": the rounder of the two is what was said.
        return f"under {high + 1:,} parameters" if _zeros(high + 1) > _zeros(high) else f"at most {high:,} parameters"
    if low is not None:
        return f"over {low - 1:,} parameters" if _zeros(low - 1) > _zeros(low) else f"at least {low:,} parameters"
    return None


def _zeros(number: int) -> int:
    text = str(number)
    return len(text) - len(text.rstrip("0"))
