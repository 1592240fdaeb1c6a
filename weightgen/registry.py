"""One small registry, used by tasks, architecture families and generators."""

import difflib
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from weightgen.errors import DuplicateNameError, UnknownNameError

Entry = TypeVar("Entry")


def unknown_name(kind: str, name: str, known: Iterable[str], remedy: str | None = None) -> UnknownNameError:
    """The error for a name that is not known, with the near choices in it."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    choices = ", ".join(near or names[:12]) or "none"
    expected = f"{'a name near to it such as' if near else 'one of'}: {choices}"
    return UnknownNameError(f"unknown {kind} '{name}'", expected=expected, remedy=remedy)


class Registry(Generic[Entry]):
    """Names to entries; a name is given once, and a wrong name suggests the near ones."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def add(self, name: str, entry: Entry) -> Entry:
        if name in self._entries:
            raise DuplicateNameError(f"the {self.kind} '{name}' is registered already")
        self._entries[name] = entry
        return entry

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """A decorator: `@families.register("weightgen/mlp")`."""
        return lambda entry: self.add(name, entry)

    def __getitem__(self, name: str) -> Entry:
        if name not in self._entries:
            raise unknown_name(self.kind, name, self._entries)
        return self._entries[name]

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))
