"""Patterns that read what is known of a network from its name: `ACASXU_run2a_{advisory:d}_{tau:d}_*`.

`{field}` takes any text without a slash, `{field:d}` an integer, `{field:f}` a number, `*` anything, `?` any one sign.
"""

import re
from dataclasses import dataclass

from weightgen.errors import QueryError

_KINDS = {"": r"[^/]+?", "s": r"[^/]+?", "d": r"[-+]?\d{1,15}", "f": r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"}
_MAKE = {"": str, "s": str, "d": int, "f": float}
_PART = re.compile(
    r"\{(?P<name>[A-Za-z_]\w*)(?::(?P<kind>\w*))?\}|(?P<any>\*+)|(?P<one>\?)|(?P<text>[^{}*?]+)|(?P<bad>.)"
)

MAXIMUM_ANY = 8
"""Parts of a pattern that take any text; more of them could take for ever to match."""


@dataclass(frozen=True)
class Pattern:
    """A pattern, ready to match.

    Args:
        text: as it was given.
        kinds: name of each field → its kind.
    """

    text: str
    kinds: dict[str, str]
    _expression: re.Pattern[str]

    @classmethod
    def parse(cls, text: str) -> "Pattern":
        """Reads a pattern.

        Raises:
            QueryError: if it cannot be read, with the place; or names a field twice.
        """
        parts, kinds, loose = [], {}, 0
        for found in _PART.finditer(text):
            name, kind = found["name"], found["kind"] or ""
            if found["bad"] or kind not in _KINDS or name in kinds:
                raise QueryError(
                    "cannot read the pattern", where=f"position {found.start() + 1} of: {text}", got=f"'{found[0]}'",
                    expected="{name}, {name:d} or {name:f}, each name once, * or ?",
                )  # fmt: skip
            if name:
                kinds[name] = kind
                parts.append(f"(?P<{name}>{_KINDS[kind]})")
            else:
                parts.append(".*?" if found["any"] else "." if found["one"] else re.escape(found["text"]))
            loose += bool(found["any"] or (name and kind in ("", "s")))
        if not kinds or loose > MAXIMUM_ANY:
            raise QueryError(
                "a pattern that tells nothing" if not kinds else "a pattern that is too loose", where=text,
                expected=f"at least one field such as {{tau:d}}, and at most {MAXIMUM_ANY} parts that take any text",
            )  # fmt: skip
        return cls(text, kinds, re.compile("".join(parts), re.DOTALL))

    def match(self, name: str) -> dict[str, str | int | float] | None:
        """The fields of a name, None if it does not match; the whole name or its last part, with or without ending."""
        last = name.rpartition("/")[2]
        for candidate in (name, last):
            found = self._expression.fullmatch(candidate)
            if found:
                return {key: _MAKE[kind](found[key]) for key, kind in self.kinds.items()}
        return None
