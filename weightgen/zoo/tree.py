"""The small tree that a query is, and `F`, which writes one in Python: `(F.task == "mnist") & (F.parameters > 9)`.

A query is text (`query.py` reads it) or made with `F`; `statements.py` turns either into SQL.
"""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from weightgen.checkpoint import SPLITS, UNSTATED
from weightgen.errors import QueryError

TEXT_FIELDS = ("name", "id", "task", "architecture", "family", "origin", "run", "split", "format")
NUMBER_FIELDS = ("parameters", "tensors", "zeros", "non_finite")
SET_FIELDS = ("tag", "parent")
"""Fields of which a network has any number of values; a comparison holds if one of them fulfils it."""

METRIC_SPLITS = (*SPLITS, UNSTATED)

Value = str | int | float


Kind = TypeVar("Kind")


def _combinable(cls: type[Kind]) -> type[Kind]:
    """Lets nodes be joined by `&`, `|` and `~`."""
    cls.__and__ = lambda self, other: And((self, other))  # type: ignore[attr-defined]
    cls.__or__ = lambda self, other: Or((self, other))  # type: ignore[attr-defined]
    cls.__invert__ = lambda self: Not(self)  # type: ignore[attr-defined]
    return cls


@dataclass(frozen=True)
class Field:
    """A column, a set, `metrics.NAME` (on the test split), `metrics.SPLIT.NAME` or a hyperparameter.

    Args:
        group: `""`, `set`, `metrics` or `hyperparameters`.
        name: the column, metric or hyperparameter.
        split: of a metric.
        position: where it stands in the expression, for error texts.
        bare: a hyperparameter that was named without its group.
    """

    group: str
    name: str
    split: str = ""
    position: int = 0
    bare: bool = False

    def __str__(self) -> str:
        split = f"{self.split}." if self.split not in ("", "test") else ""
        group = "" if self.bare or self.group in ("", "set") else f"{self.group}."
        return f"{group}{split}{self.name}"


@_combinable
@dataclass(frozen=True)
class Comparison:
    field: Field
    operator: str
    value: Value


@_combinable
@dataclass(frozen=True)
class In:
    field: Field
    values: tuple[Value, ...]


@_combinable
@dataclass(frozen=True)
class Between:
    field: Field
    least: Value
    greatest: Value


@_combinable
@dataclass(frozen=True)
class Like:
    """`like` with `%` and `_`, or `glob` with `*`, `?` and `[…]`."""

    field: Field
    word: str
    pattern: str


@_combinable
@dataclass(frozen=True)
class Known:
    field: Field


@_combinable
@dataclass(frozen=True)
class HasTensor:
    """A tensor whose name equals, or is like, a text; and whose shape is this, None for any size.

    Args:
        word: `=`, `like` or `glob`.
    """

    word: str
    name: str
    shape: tuple[int | None, ...] | None = None


@_combinable
@dataclass(frozen=True)
class Matches:
    """All these words stand in the name or the card; one that ends in `*` is a beginning."""

    words: str


@_combinable
@dataclass(frozen=True)
class Among:
    """One of these ids; what `descendants_of`, `split` and snapshots are made of."""

    ids: tuple[str, ...]


@_combinable
@dataclass(frozen=True)
class Not:
    part: "Node"


@_combinable
@dataclass(frozen=True)
class And:
    parts: tuple["Node", ...]


@_combinable
@dataclass(frozen=True)
class Or:
    parts: tuple["Node", ...]


Node = Comparison | In | Between | Like | Known | HasTensor | Matches | Among | Not | And | Or

EVERYTHING = And(())


def fields(node: Node) -> Iterator[Field]:
    """All fields that a tree names."""
    if isinstance(node, (Comparison, In, Between, Like, Known)):
        yield node.field
    elif isinstance(node, Not):
        yield from fields(node.part)
    elif isinstance(node, (And, Or)):
        for part in node.parts:
            yield from fields(part)


def uses_words(node: Node) -> bool:
    """Whether a tree asks for full-text search."""
    if isinstance(node, (And, Or)):
        return any(uses_words(part) for part in node.parts)
    return uses_words(node.part) if isinstance(node, Not) else isinstance(node, Matches)


def field_of(text: str, source: str = "", position: int = 0) -> Field:
    """A field by its name; what is neither a column nor a metric is a hyperparameter, with or without its group.

    Raises:
        QueryError: for a metric on a split that does not exist.
    """
    group, *names = text.split(".")
    if not names and group in TEXT_FIELDS + NUMBER_FIELDS:
        return Field("", group, position=position)
    if not names and group in SET_FIELDS:
        return Field("set", group, position=position)
    if group == "metrics":
        if len(names) == 1:
            return Field(group, names[0], "test", position)
        if len(names) == 2 and names[0] in METRIC_SPLITS:
            return Field(group, names[1], names[0], position)
        expected = ["metrics.NAME", *(f"metrics.{split}.NAME" for split in METRIC_SPLITS)]
        raise unknown_field(text, source or text, position, expected)
    if group == "hyperparameters" and names:
        return Field(group, ".".join(names), position=position)
    return Field("hyperparameters", text, position=position, bare=True)


def unknown_field(text: str, source: str, position: int, known: Sequence[str]) -> QueryError:
    """The error for a field that does not exist, with the near ones in it."""
    near = difflib.get_close_matches(text, known, n=3, cutoff=0.5)
    return QueryError(
        f"unknown field '{text}'",
        where=f"position {position + 1} of: {source}",
        expected=f"{'a field near to it such as' if near else 'one of'}: {', '.join(near or sorted(known)[:16])}",
    )


def kind_error(field: Field, value: object) -> str | None:
    """What belongs to a field, if `value` is of another kind."""
    is_text = field.group == "set" or (field.group == "" and field.name in TEXT_FIELDS)
    if field.group == "hyperparameters" or isinstance(value, str) == is_text:
        return None
    name = "metrics" if field.group == "metrics" else field.name
    return f"{'a text in quotes' if is_text else 'a number'} for {name}"


class _Writer:
    """A field that is being named; comparing it gives a node."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __getattr__(self, name: str) -> "_Writer":
        if name.startswith("__"):
            raise AttributeError(name)
        return _Writer(f"{self._path}.{name}" if self._path else name)

    def __getitem__(self, name: str) -> "_Writer":
        return _Writer(f"{self._path}.{name}" if self._path else name)

    @property
    def _field(self) -> Field:
        return field_of(self._path)

    def _compared(self, operator: str, value: Any) -> Comparison:
        return Comparison(self._field, operator, _checked(self._field, value))

    def __eq__(self, value: object) -> Comparison:  # type: ignore[override]
        return self._compared("=", value)

    def __ne__(self, value: object) -> Comparison:  # type: ignore[override]
        return self._compared("!=", value)

    def __lt__(self, value: Value) -> Comparison:
        return self._compared("<", value)

    def __le__(self, value: Value) -> Comparison:
        return self._compared("<=", value)

    def __gt__(self, value: Value) -> Comparison:
        return self._compared(">", value)

    def __ge__(self, value: Value) -> Comparison:
        return self._compared(">=", value)

    __hash__ = None  # type: ignore[assignment]

    def isin(self, values: Sequence[Value]) -> In:
        return In(self._field, tuple(_checked(self._field, value) for value in values))

    def between(self, least: Value, greatest: Value) -> Between:
        return Between(self._field, _checked(self._field, least), _checked(self._field, greatest))

    def like(self, pattern: str) -> Like:
        return Like(self._field, "like", pattern)

    def glob(self, pattern: str) -> Like:
        return Like(self._field, "glob", pattern)

    def is_known(self) -> Known:
        return Known(self._field)


def _checked(field: Field, value: Any) -> Value:
    value = int(value) if isinstance(value, bool) else value
    if isinstance(value, int) and abs(value) >= 2**63:
        value = float(value)
    expected = kind_error(field, value) if isinstance(value, (str, int, float)) else "a text or a number"
    if expected:
        raise QueryError("a value of the wrong kind", where=f"F.{field}", got=repr(value)[:80], expected=expected)
    return value


F = _Writer("")
"""Names fields: `F.task`, `F.metrics.accuracy`, `F.metrics.validation.accuracy`, `F.tag`, `F.seed`, `F["my-name"]`."""


def has_tensor(name: str, shape: Sequence[int | None] | None = None) -> HasTensor:
    """Networks with a tensor whose name is like `name` (`%` for anything), and of this shape (None for any size)."""
    return HasTensor("like", name, None if shape is None else tuple(shape))


def matches(words: str) -> Matches:
    """Networks in whose name or card all these words stand."""
    return Matches(words)
