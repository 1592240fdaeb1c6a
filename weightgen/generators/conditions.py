"""What a hypernetwork is conditioned on: scalars in a range, vectors, categories, texts; and their encoding.

After "Magnitude Invariant Parametrizations Improve Hypernetwork Learning", https://arxiv.org/abs/2304.07645.

Notation: z in [0, 1]^D is the condition in units of its range. E(z) = [cos(πz/2), sin(πz/2)] has the same norm for
every z, so that what a network without biases makes of it does not shrink with z. A category is a one-hot vector and a
text a unit vector: these have a constant norm as they are. E is divided by √D, so that its norm is 1 however many
there are.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from weightgen.errors import WeightgenError
from weightgen.instructions.encoder import InstructionEncoder, InstructionEncoderConfig
from weightgen.registry import unknown_name

ALONE = "condition"
"""The name of a condition that was given without one."""


@dataclass(frozen=True)
class Scalar:
    """A number from `low` to `high`; on a logarithmic scale if so asked, as suits learning rates and weight decays."""

    low: float = 0.0
    high: float = 1.0
    logarithmic: bool = False

    def __post_init__(self) -> None:
        _check_range(self.low, self.high)
        if self.logarithmic and self.low <= 0:
            raise WeightgenError("a logarithmic range begins above 0", got=self.low)


@dataclass(frozen=True)
class Vector:
    """`dimension` numbers, each from `low` to `high`."""

    dimension: int
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        _check_range(self.low, self.high)
        if self.dimension < 1:
            raise WeightgenError("a condition has at least one dimension", got=self.dimension)


@dataclass(frozen=True)
class Category:
    """One of some names."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) < len(self.names):
            raise WeightgenError("categories are different names", got=list(self.names))


@dataclass(frozen=True)
class Text:
    """A free text, read by a frozen encoder: texts → unit vectors `[n, encoder.dimension]`."""

    encoder: nn.Module


Spec = Scalar | Vector | Category | Text


class ConditionSpace:
    """Named conditions together: what users give → z `[D]` or `[n, D]` → E(z).

    Args:
        condition: name → Spec; or one Spec without a name; or an integer, so many numbers in [0, 1].
        clamp: whether numbers out of their range are moved to its end; else they are an error.
    """

    def __init__(self, condition: Mapping[str, Spec] | Spec | int, clamp: bool = False) -> None:
        if isinstance(condition, int) and not isinstance(condition, bool):
            condition = Vector(condition)
        named: Mapping[str, Spec] = condition if isinstance(condition, Mapping) else {ALONE: condition}
        for name, spec in named.items():
            if not isinstance(spec, Scalar | Vector | Category | Text):
                raise WeightgenError(
                    "not a condition", where=name, got=repr(spec), expected="Scalar, Vector, Category, Text or a size"
                )
        if not named:
            raise WeightgenError("a hypernetwork needs a condition", got="none")
        self.entries: dict[str, Spec] = {str(name): spec for name, spec in named.items()}
        self.clamp = clamp

    @property
    def names(self) -> list[str]:
        """One name for each column of z."""
        return [
            name if _width(spec) == 1 else f"{name}.{column}"
            for name, spec in self.entries.items()
            for column in range(_width(spec))
        ]

    @property
    def dimension(self) -> int:
        """D, the columns of z."""
        return sum(_width(spec) for spec in self.entries.values())

    @property
    def texts(self) -> dict[str, nn.Module]:
        """The encoders of texts, by the name of the condition."""
        return {name: spec.encoder for name, spec in self.entries.items() if isinstance(spec, Text)}

    def width(self, encoded: bool) -> int:
        """The columns of `encode`."""
        return sum(_width(spec) * (2 if encoded and _numeric(spec) else 1) for spec in self.entries.values())

    def values(self, condition: Any) -> Tensor:
        """z of one condition, `[D]`, or of several, `[n, D]`.

        Args:
            condition: name → value, or the value itself where there is but one. A value is a number, a name or a text,
                or a sequence of n of them; of a Vector it is a tensor `[dimension]` or `[n, dimension]`. Where all are
                numbers, a tensor `[D]` or `[n, D]` in the order of the entries will do.

        Raises:
            WeightgenError: for a value out of its range (it names the range), not finite, or of the wrong shape.
            UnknownNameError: for a condition or category that there is not.
        """
        if isinstance(condition, Mapping):
            return self._joined(condition)
        if len(self.entries) == 1:
            return self._joined({next(iter(self.entries)): condition})
        if not isinstance(condition, Tensor):
            raise WeightgenError(
                "several conditions are given by name", got=type(condition).__name__, expected=", ".join(self.entries)
            )
        if not all(map(_numeric, self.entries.values())) or condition.shape[-1:] != (self.dimension,):
            raise WeightgenError(
                "a tensor of another shape than the conditions", got=list(condition.shape),
                expected=f"[{self.dimension}] or [n, {self.dimension}]: {', '.join(self.names)}",
            )  # fmt: skip
        parts = condition.split([_width(spec) for spec in self.entries.values()], dim=-1)
        named = zip(self.entries.items(), parts, strict=True)
        return self._joined(
            {name: part.squeeze(-1) if isinstance(spec, Scalar) else part for (name, spec), part in named}
        )

    def encode(self, z: Tensor, encoded: bool = True) -> Tensor:
        """E(z), `[…, width]` of norm 1; with `encoded` False z itself, whose norm changes with it.

        In compiled code, which cannot raise, a z out of range gives NaN.
        """
        if not encoded:
            return z
        if torch.compiler.is_compiling():
            z = torch.where((z >= -1e-6) & (z <= 1 + 1e-6) | ~self._ranged(z), z, math.nan)
        parts = []
        for spec, part in zip(self.entries.values(), z.split([*map(_width, self.entries.values())], -1), strict=True):
            if _numeric(spec):
                part = torch.cat([torch.cos(part * (math.pi / 2)), torch.sin(part * (math.pi / 2))], dim=-1)
            parts.append(part)
        norms = [_width(spec) if _numeric(spec) else 1 for spec in self.entries.values()]
        return torch.cat(parts, dim=-1) / math.sqrt(sum(norms))

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """z of `count` conditions `[count, D]`: numbers uniform in z, categories equally likely.

        Raises:
            WeightgenError: for texts, which cannot be drawn.
        """
        parts = []
        for name, spec in self.entries.items():
            if isinstance(spec, Text):
                raise WeightgenError("texts cannot be drawn at random", where=name, remedy="give the text")
            if isinstance(spec, Category):
                picks = torch.randint(len(spec.names), (count,), generator=generator)
                parts.append(nn.functional.one_hot(picks, len(spec.names)).float())
            else:
                parts.append(torch.rand(count, _width(spec), generator=generator))
        return torch.cat(parts, dim=1)

    def describe(self, z: Tensor) -> dict[str, Any]:
        """One z `[D]` as JSON values in the user's units; a text, which cannot be told from its vector, is left out."""
        found: dict[str, Any] = {}
        for (name, spec), part in zip(
            self.entries.items(), z.detach().cpu().double().split([*map(_width, self.entries.values())]), strict=True
        ):
            if isinstance(spec, Category):
                found[name] = spec.names[int(part.argmax())]
            elif isinstance(spec, Scalar | Vector):
                numbers = [round(number, 9) for number in _from_unit(part, spec).tolist()]
                found[name] = numbers[0] if isinstance(spec, Scalar) else numbers
        return found

    def to_json(self) -> dict[str, Any]:
        """The space as JSON values; `from_json` is its inverse, but for the weights of text encoders."""
        return {"clamp": self.clamp, "entries": {name: _spec_json(spec) for name, spec in self.entries.items()}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ConditionSpace":
        return cls({name: spec_from_json(entry) for name, entry in value["entries"].items()}, bool(value["clamp"]))

    def _joined(self, condition: Mapping[str, Any]) -> Tensor:
        for name in condition:
            if name not in self.entries:
                raise unknown_name("condition", str(name), self.entries)
        for name in self.entries:
            if name not in condition:
                raise WeightgenError(f"the condition '{name}' is missing", got=", ".join(condition) or "none")
        parts = [self._part(name, spec, condition[name]) for name, spec in self.entries.items()]
        counts = {len(part) for part in parts if part.dim() == 2}
        if len(counts) > 1:
            raise WeightgenError("conditions of different numbers", got=", ".join(map(str, sorted(counts))))
        if counts:
            count = counts.pop()
            parts = [part if part.dim() == 2 else part.expand(count, -1) for part in parts]
        return torch.cat(parts, dim=-1)

    def _part(self, name: str, spec: Spec, value: Any) -> Tensor:
        if isinstance(spec, Text | Category):
            words = _words(name, value)
            vectors = self._hot(name, spec, words) if isinstance(spec, Category) else self._embedded(spec, words)
            return vectors[0] if isinstance(value, str) else vectors
        return self._numbers(name, spec, value)

    @staticmethod
    def _embedded(spec: Text, texts: list[str]) -> Tensor:
        with torch.no_grad():
            return spec.encoder(texts)

    @staticmethod
    def _hot(name: str, spec: Category, words: list[str]) -> Tensor:
        for one in words:
            if one not in spec.names:
                raise unknown_name(f"category of {name}", one, spec.names)
        return nn.functional.one_hot(torch.tensor([spec.names.index(one) for one in words]), len(spec.names)).float()

    def _numbers(self, name: str, spec: Scalar | Vector, value: Any) -> Tensor:
        try:
            numbers = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError) as error:
            raise WeightgenError("not a number", where=f"condition {name}", got=repr(value)[:40]) from error
        numbers = numbers.float()
        if isinstance(spec, Scalar) and (numbers.dim() == 0 or numbers.shape[1:] != (1,)):
            numbers = numbers.unsqueeze(-1)
        elif numbers.dim() == 0:
            numbers = numbers.unsqueeze(0)
        width = _width(spec)
        if numbers.dim() not in (1, 2) or numbers.shape[-1] != width:
            raise WeightgenError(
                "a condition of the wrong shape", where=name, got=list(numbers.shape),
                expected=f"[{width}] or [n, {width}]",
            )  # fmt: skip
        if self.clamp:
            return _to_unit(numbers.clamp(spec.low, spec.high), spec)
        if not torch.compiler.is_compiling():
            slack = 1e-6 * (spec.high - spec.low)
            wrong = ~((numbers >= spec.low - slack) & (numbers <= spec.high + slack))  # NaN is out of every range.
            if bool(wrong.any()):
                raise WeightgenError(
                    "a condition out of its range", where=name, got=f"{numbers[wrong][0].item():.6g}",
                    expected=f"{spec.low:.6g} to {spec.high:.6g}",
                    remedy="stay within it, or make the hypernetwork with clamp=True",
                )  # fmt: skip
        return _to_unit(numbers, spec)

    def _ranged(self, z: Tensor) -> Tensor:
        """Which columns of z are numbers in a range."""
        flags = [_numeric(spec) for spec in self.entries.values() for _ in range(_width(spec))]
        return torch.tensor(flags, device=z.device)


def _check_range(low: float, high: float) -> None:
    if not -math.inf < low < high < math.inf:
        raise WeightgenError("not a range", got=f"{low} to {high}", expected="two finite numbers, the lower first")


def _words(name: str, value: Any) -> list[str]:
    words = [value] if isinstance(value, str) else list(value) if isinstance(value, Sequence) else []
    if not words or not all(isinstance(word, str) for word in words):
        raise WeightgenError("not a name or text", where=f"condition {name}", got=repr(value)[:40],
                             expected="a string or a list of them")  # fmt: skip
    return words


def _numeric(spec: Spec) -> bool:
    return isinstance(spec, Scalar | Vector)


def _width(spec: Spec) -> int:
    if isinstance(spec, Scalar):
        return 1
    if isinstance(spec, Category):
        return len(spec.names)
    return spec.dimension if isinstance(spec, Vector) else int(spec.encoder.dimension)  # type: ignore[arg-type]


def _to_unit(numbers: Tensor, spec: Scalar | Vector) -> Tensor:
    if isinstance(spec, Scalar) and spec.logarithmic:
        return (numbers.log() - math.log(spec.low)) / (math.log(spec.high) - math.log(spec.low))
    return (numbers - spec.low) / (spec.high - spec.low)


def _from_unit(z: Tensor, spec: Scalar | Vector) -> Tensor:
    if isinstance(spec, Scalar) and spec.logarithmic:
        return (math.log(spec.low) + z * (math.log(spec.high) - math.log(spec.low))).exp()
    return spec.low + z * (spec.high - spec.low)


def _spec_json(spec: Spec) -> dict[str, Any]:
    if isinstance(spec, Scalar):
        return {"kind": "scalar", "low": spec.low, "high": spec.high, "logarithmic": spec.logarithmic}
    if isinstance(spec, Vector):
        return {"kind": "vector", "dimension": spec.dimension, "low": spec.low, "high": spec.high}
    if isinstance(spec, Category):
        return {"kind": "category", "names": list(spec.names)}
    if not isinstance(spec.encoder, InstructionEncoder):
        raise WeightgenError("only an InstructionEncoder is saved", got=type(spec.encoder).__name__)
    config = spec.encoder.config
    return {
        "kind": "text", "buckets": config.buckets, "width": config.width, "dimension": config.dimension,
        "tasks": list(config.tasks),
    }  # fmt: skip


def spec_from_json(value: Mapping[str, Any]) -> Spec:
    """A Spec from JSON values such as `{"kind": "scalar", "low": 0, "high": 180}`.

    Raises:
        UnknownNameError: for a kind that there is not.
        WeightgenError: for entries that the kind does not have, or values that it cannot have.
    """
    options = dict(value)
    kind = options.pop("kind", "scalar")
    kinds = {"scalar": Scalar, "vector": Vector, "category": Category, "text": InstructionEncoderConfig}
    if kind not in kinds:
        raise unknown_name("kind of condition", str(kind), kinds)
    lists = {name: tuple(item) for name, item in options.items() if isinstance(item, Sequence)}
    try:
        made = kinds[kind](**{**options, **lists})
        return Text(InstructionEncoder(made)) if isinstance(made, InstructionEncoderConfig) else made
    except TypeError as error:
        raise WeightgenError("a condition that cannot be read", got=str(options), expected=str(error)) from error
