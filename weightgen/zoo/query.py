"""The query language: text → a small tree → SQL in which every value is bound, never pasted.

    expression  := term ("or" term)*
    term        := factor ("and" factor)*
    factor      := "not" factor | "(" expression ")" | comparison
    comparison  := field ("=" | "!=" | "<" | "<=" | ">" | ">=") value | field ["not"] "in" "(" value ("," value)* ")"
    value       := number | 'text' | "text" | true | false

What a network's card does not say is unknown, and a comparison with the unknown holds neither plain nor under `not`.
"""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from weightgen.errors import QueryError

TEXT_FIELDS = ("name", "id", "task", "architecture", "family", "origin", "run", "split")
NUMBER_FIELDS = ("parameters",)
OPERATORS = ("=", "!=", "<=", ">=", "<", ">")
SPLITS = ("train", "validation", "test")

Value = str | int | float
SQL = tuple[str, list[Value]]
"""A piece of SQL and the values of its question marks, in order."""


@dataclass(frozen=True)
class Field:
    """A column, `metrics.NAME` (on the test split), `metrics.SPLIT.NAME` or `hyperparameters.NAME`.

    Args:
        group: `""`, `metrics` or `hyperparameters`.
        name: the column, metric or hyperparameter.
        split: of a metric.
        position: where it stands in the expression, for error texts.
    """

    group: str
    name: str
    split: str = ""
    position: int = 0


@dataclass(frozen=True)
class Comparison:
    field: Field
    operator: str
    value: Value


@dataclass(frozen=True)
class In:
    field: Field
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Not:
    part: "Node"


@dataclass(frozen=True)
class And:
    parts: tuple["Node", ...]


@dataclass(frozen=True)
class Or:
    parts: tuple["Node", ...]


Node = Comparison | In | Not | And | Or

EVERYTHING = And(())


def parse(expression: str) -> Node:
    """The tree of an expression; an empty one holds for every network.

    Raises:
        QueryError: if it cannot be read; the error names the position, counted from 1, and what would fit there.
    """
    parser = _Parser(expression)
    if parser.kind == "end":
        return EVERYTHING
    tree = parser.expression(0)
    if parser.kind != "end":
        raise parser.error("'and', 'or' or the end")
    return tree


def parse_field(text: str) -> Field:
    """A field by its name, such as the sort key `metrics.accuracy`.

    Raises:
        QueryError: if there is no such field.
    """
    return _field(text, text, 0)


def fields(node: Node) -> Iterator[Field]:
    """All fields that a tree names."""
    if isinstance(node, (Comparison, In)):
        yield node.field
    elif isinstance(node, Not):
        yield from fields(node.part)
    else:
        for part in node.parts:
            yield from fields(part)


def condition(node: Node) -> SQL:
    """A tree as an SQL condition over the table `models`."""
    if isinstance(node, Comparison):
        left, values = expression(node.field, node.value)
        return f"{left} {node.operator} ?", [*values, node.value]
    if isinstance(node, In):
        texts = tuple(value for value in node.values if isinstance(value, str))
        numbers = tuple(value for value in node.values if not isinstance(value, str))
        if texts and numbers:
            return condition(Or((In(node.field, texts), In(node.field, numbers))))
        left, values = expression(node.field, node.values[0])
        return f"{left} IN ({', '.join('?' * len(node.values))})", [*values, *node.values]
    if isinstance(node, Not):
        part, values = condition(node.part)
        return f"NOT ({part})", values
    if not node.parts:
        return "1", []
    parts = [condition(part) for part in node.parts]
    word = " AND " if isinstance(node, And) else " OR "
    return word.join(f"({text})" for text, _ in parts), [value for _, values in parts for value in values]


def expression(field: Field, like: Value | None = None) -> SQL:
    """A field as an SQL expression over the table `models`, NULL where it is unknown.

    Args:
        like: a value it is compared with; hyperparameters of another kind then count as unknown.
    """
    if field.group == "metrics":
        # A network measured on several data sets counts with the first figure of its card.
        return (
            "(SELECT value FROM metrics WHERE model = models.number AND name = ? AND split = ?"
            " ORDER BY position LIMIT 1)",
            [field.name, field.split],
        )
    if field.group == "hyperparameters":
        kinds = {str: " AND typeof(value) = 'text'", type(None): ""}
        kind = kinds.get(type(like), " AND typeof(value) IN ('integer', 'real')")
        return f"(SELECT value FROM hyperparameters WHERE model = models.number AND name = ?{kind})", [field.name]
    # The name is one of the columns above, never text of the user.
    return f"models.{field.name}", []


_TOKEN = re.compile(
    r"""\s*(?:
    (?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
  | (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?![\w.])
  | (?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)
  | (?P<symbol><=|>=|!=|[=<>(),])
  | (?P<end>\Z)
    )""",
    re.VERBOSE,
)

MAXIMUM_DEPTH = 50
"""Parentheses and `not` within each other; bounds the stack against hostile input."""

MAXIMUM_COMPARISONS = 400
"""SQLite bounds the depth of an expression by 1,000, and a chain of `or` is as deep as it is long."""


class _Parser:
    def __init__(self, source: str) -> None:
        self.source = source
        self.next = 0
        self.comparisons = 0
        self.advance()

    def advance(self) -> str:
        """Steps to the next token and returns the text of the one left behind."""
        left = getattr(self, "token", "")
        found = _TOKEN.match(self.source, self.next)
        if found is None:
            self.start = self.next + len(self.source[self.next :]) - len(self.source[self.next :].lstrip())
            self.token = self.source[self.start : self.start + 12]
            raise self.error("a field, an operator or a value")
        self.kind = str(found.lastgroup)
        self.token = found.group(self.kind)
        self.start = found.start(self.kind)
        self.next = found.end()
        if self.kind == "name" and self.token.lower() in ("and", "or", "not", "in", "true", "false"):
            self.kind, self.token = "word", self.token.lower()
        return left

    def error(self, expected: str) -> QueryError:
        got = f"'{self.token}'" if self.token else "the end"
        return QueryError(
            "cannot read the query", where=f"position {self.start + 1} of: {self.source}", got=got, expected=expected
        )

    def take(self, token: str) -> bool:
        if self.kind in ("symbol", "word") and self.token == token:
            self.advance()
            return True
        return False

    def need(self, token: str) -> None:
        if not self.take(token):
            raise self.error(f"'{token}'")

    def expression(self, depth: int) -> Node:
        parts = [self.term(depth)]
        while self.take("or"):
            parts.append(self.term(depth))
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def term(self, depth: int) -> Node:
        parts = [self.factor(depth)]
        while self.take("and"):
            parts.append(self.factor(depth))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def factor(self, depth: int) -> Node:
        if depth > MAXIMUM_DEPTH:
            raise QueryError("the query is nested too deeply", got=f"more than {MAXIMUM_DEPTH} levels")
        if self.take("not"):
            return Not(self.factor(depth + 1))
        if self.take("("):
            inner = self.expression(depth + 1)
            self.need(")")
            return inner
        return self.comparison()

    def comparison(self) -> Node:
        self.comparisons += 1
        if self.comparisons > MAXIMUM_COMPARISONS:
            raise QueryError(
                "the query is too long", got=f"more than {MAXIMUM_COMPARISONS} comparisons", remedy="use in"
            )
        if self.kind != "name":
            raise self.error("a field")
        field = _field(self.token, self.source, self.start)
        self.advance()
        negated = self.take("not")
        if negated or (self.kind, self.token) == ("word", "in"):
            self.need("in")
            self.need("(")
            values = [self.value(field)]
            while self.take(","):
                values.append(self.value(field))
            self.need(")")
            among = In(field, tuple(values))
            return Not(among) if negated else among
        if self.token not in OPERATORS:
            raise self.error(f"one of {' '.join(OPERATORS)} or in")
        return Comparison(field, self.advance(), self.value(field))

    def value(self, field: Field) -> Value:
        if self.kind == "text":
            quote = self.token[0]
            value: Value = self.token[1:-1].replace(quote * 2, quote)
        elif self.kind == "number":
            value = int(self.token) if re.fullmatch(r"[-+]?\d{1,18}", self.token) else float(self.token)
        elif self.kind == "word" and self.token in ("true", "false"):
            value = int(self.token == "true")
        else:
            raise self.error("a number, or a text in quotes")
        is_text = field.group == "" and field.name in TEXT_FIELDS
        if field.group != "hyperparameters" and isinstance(value, str) != is_text:
            raise self.error(f"{'a text in quotes' if is_text else 'a number'} for {field.group or field.name}")
        self.advance()
        return value


def _field(text: str, source: str, position: int) -> Field:
    columns = TEXT_FIELDS + NUMBER_FIELDS
    group, *names = text.split(".")
    if not names and group in columns:
        return Field("", group, position=position)
    if group == "metrics" and len(names) == 1:
        return Field(group, names[0], "test", position)
    if group == "metrics" and len(names) == 2 and names[0] in SPLITS:
        return Field(group, names[1], names[0], position)
    if group == "hyperparameters" and names:
        return Field(group, ".".join(names), position=position)
    raise unknown_field(
        text, source, position, [*columns, "metrics.NAME", "metrics.SPLIT.NAME", "hyperparameters.NAME"]
    )


def unknown_field(text: str, source: str, position: int, known: list[str]) -> QueryError:
    """The error for a field that does not exist, with the near ones in it."""
    near = difflib.get_close_matches(text, known, n=3, cutoff=0.5)
    return QueryError(
        f"unknown field '{text}'",
        where=f"position {position + 1} of: {source}",
        expected=f"{'a field near to it such as' if near else 'one of'}: {', '.join(near or sorted(known)[:16])}",
    )
