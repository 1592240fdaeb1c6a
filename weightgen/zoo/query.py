"""The query language as text.

    expression  := term ("or" term)*
    term        := factor ("and" factor)*
    factor      := "not" factor | "(" expression ")" | comparison | has | "matches" text
    comparison  := field ("=" | "!=" | "<" | "<=" | ">" | ">=") value
                 | field ["not"] "in" "(" value ("," value)* ")"
                 | field ["not"] "between" value "and" value
                 | field ["not"] ("like" | "glob") text
                 | field "is" ["not"] "known" | field "is" "unknown"
    has         := "has" "tensor" ["like" | "glob"] text ["with" "shape" "(" size ("," size)* ")"]
    size        := number | "*"
    value       := number | 'text' | "text" | true | false

What is not known of a network is unknown, and a comparison with the unknown holds neither plain nor under `not`.
"""

import re

from weightgen.errors import QueryError
from weightgen.zoo.tree import (
    EVERYTHING,
    And,
    Between,
    Comparison,
    Field,
    HasTensor,
    In,
    Known,
    Like,
    Matches,
    Node,
    Not,
    Or,
    Value,
    field_of,
    kind_error,
)

OPERATORS = ("=", "!=", "<=", ">=", "<", ">")

WORDS = (
    "and", "or", "not", "in", "between", "like", "glob", "is", "known", "unknown", "has", "tensor", "with", "shape",
    "matches", "true", "false",
)  # fmt: skip
"""Words of the language; a hyperparameter that bears such a name is asked for as `hyperparameters.NAME`."""


def parse(expression: str) -> Node:
    """The tree of an expression; an empty one holds for every network.

    Raises:
        QueryError: if it cannot be read; the error names the position, counted from 1, and what would fit there.
    """
    if any("\ud800" <= sign <= "\udfff" for sign in expression):
        raise QueryError("cannot read the query", where=repr(expression)[:200], expected="text in UTF-8")
    parser = _Parser(expression)
    if parser.kind == "end":
        return EVERYTHING
    tree = parser.expression(0)
    if parser.kind != "end":
        raise parser.error("'and', 'or' or the end")
    return tree


_TOKEN = re.compile(
    r"""\s*(?:
    (?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
  | (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?![\w.])
  | (?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)
  | (?P<symbol><=|>=|!=|[=<>(),*])
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
        if self.kind == "name" and self.token.lower() in WORDS:
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
        self.comparisons += 1
        if self.comparisons > MAXIMUM_COMPARISONS:
            raise QueryError(
                "the query is too long", got=f"more than {MAXIMUM_COMPARISONS} comparisons", remedy="use in"
            )
        if self.take("has"):
            return self.tensor()
        if self.take("matches"):
            return Matches(self.text())
        return self.comparison()

    def comparison(self) -> Node:
        if self.kind != "name":
            raise self.error("a field")
        field = field_of(self.token, self.source, self.start)
        self.advance()
        if self.kind == "symbol" and self.token in OPERATORS:
            return Comparison(field, self.advance(), self.value(field))
        if self.take("is"):
            negated = self.take("not")
            if not negated and self.take("unknown"):
                return Not(Known(field))
            self.need("known")
            return Not(Known(field)) if negated else Known(field)
        negated = self.take("not")
        found = self.among(field)
        return Not(found) if negated else found

    def among(self, field: Field) -> Node:
        if self.take("in"):
            self.need("(")
            values = [self.value(field)]
            while self.take(","):
                values.append(self.value(field))
            self.need(")")
            return In(field, tuple(values))
        if self.take("between"):
            least = self.value(field)
            self.need("and")
            return Between(field, least, self.value(field))
        for word in ("like", "glob"):
            if self.take(word):
                return Like(field, word, self.text())
        raise self.error(f"one of {' '.join(OPERATORS)} in between like glob is")

    def tensor(self) -> Node:
        self.need("tensor")
        word = next((each for each in ("like", "glob") if self.take(each)), "=")
        name = self.text()
        if not self.take("with"):
            return HasTensor(word, name)
        self.need("shape")
        self.need("(")
        sizes = [] if (self.kind, self.token) == ("symbol", ")") else [self.size()]
        while self.take(","):
            sizes.append(self.size())
        self.need(")")
        return HasTensor(word, name, tuple(sizes))

    def size(self) -> int | None:
        if self.take("*"):
            return None
        if not re.fullmatch(r"\d{1,15}", self.token):
            raise self.error("a size or *")
        return int(self.advance())

    def text(self) -> str:
        if self.kind != "text":
            raise self.error("a text in quotes")
        quote = self.token[0]
        return self.advance()[1:-1].replace(quote * 2, quote)

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
        expected = kind_error(field, value)
        if expected:
            raise self.error(expected)
        self.advance()
        return value
