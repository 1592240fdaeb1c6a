"""Reads what a pickle describes without running it: no name in it is ever imported and nothing is ever called.

Calls come back as `Call(name, arguments)`, references to storages as `Storage`. Plain values come back as they are.
`torch.load(weights_only=True)` runs a short list of functions, reads all tensors at once and trusts the sizes that a
file declares; here tensors stay on disk until they are asked for, and every size can be checked first.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

from weightgen.errors import CorruptFileError

MAXIMUM_OPERATIONS = 20_000_000
"""Steps of one pickle; a model of ten thousand tensors has half a million."""


@dataclass(frozen=True)
class Name:
    """A function or class that the pickle refers to, such as `torch._utils._rebuild_tensor_v2`."""

    path: str


@dataclass
class Call:
    """What the pickle would have called or made, and the state it would have given it."""

    name: str
    arguments: tuple
    state: Any = None
    items: dict = field(default_factory=dict)
    values: list = field(default_factory=list)


@dataclass(frozen=True)
class Storage:
    """A reference to a block of values that lies elsewhere in the file; `identity` is what the pickle says of it."""

    identity: Any


_MARK = object()

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {
    "INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_IGNORED = {"PROTO", "FRAME", "STOP"}


class _Machine:
    """The stack machine of pickle, with descriptions in place of actions."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.steps: dict[str, Callable[[Any], None]] = {
            "MARK": lambda _: self.stack.append(_MARK),
            "EMPTY_DICT": lambda _: self.stack.append({}),
            "EMPTY_LIST": lambda _: self.stack.append([]),
            "EMPTY_TUPLE": lambda _: self.stack.append(()),
            "EMPTY_SET": lambda _: self.stack.append([]),
            "FROZENSET": lambda _: self.stack.append(self.marked()),
            "LIST": lambda _: self.stack.append(self.marked()),
            "TUPLE": lambda _: self.stack.append(tuple(self.marked())),
            "TUPLE1": lambda _: self.stack.append(tuple(self.popped(1))),
            "TUPLE2": lambda _: self.stack.append(tuple(self.popped(2))),
            "TUPLE3": lambda _: self.stack.append(tuple(self.popped(3))),
            "DICT": lambda _: self.stack.append(self.filled({}, self.marked())),
            "APPEND": lambda _: self.extend(self.popped(1)),
            "APPENDS": lambda _: self.extend(self.marked()),
            "ADDITEMS": lambda _: self.extend(self.marked()),
            "SETITEM": lambda _: self.fill(self.popped(2)),
            "SETITEMS": lambda _: self.fill(self.marked()),
            "PUT": self.remember,
            "BINPUT": self.remember,
            "LONG_BINPUT": self.remember,
            "MEMOIZE": lambda _: self.remember(len(self.memo)),
            "GET": lambda place: self.stack.append(self.memo[int(place)]),
            "BINGET": lambda place: self.stack.append(self.memo[place]),
            "LONG_BINGET": lambda place: self.stack.append(self.memo[place]),
            "GLOBAL": lambda names: self.stack.append(Name(names.replace(" ", "."))),
            "STACK_GLOBAL": lambda _: self.stack.append(Name(".".join(map(str, self.popped(2))))),
            "PERSID": lambda identity: self.stack.append(Storage(identity)),
            "BINPERSID": lambda _: self.stack.append(Storage(self.popped(1)[0])),
            "REDUCE": lambda _: self.call(*self.popped(2)),
            "NEWOBJ": lambda _: self.call(*self.popped(2)),
            "NEWOBJ_EX": lambda _: self.call(*self.popped(3)[:2]),
            "BUILD": lambda _: self.build(self.popped(1)[0]),
            "POP": lambda _: self.popped(1),
            "POP_MARK": lambda _: self.marked(),
            "DUP": lambda _: self.stack.append(self.stack[-1]),
        }

    def popped(self, number: int) -> list:
        if len(self.stack) < number or any(value is _MARK for value in self.stack[-number:]):
            raise IndexError("it takes more from the stack than there is")
        taken = self.stack[-number:]
        del self.stack[-number:]
        return taken

    def marked(self) -> list:
        """Everything above the last mark."""
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise IndexError("a mark is missing")
        taken = self.stack[place + 1 :]
        del self.stack[place:]
        return taken

    def remember(self, place: Any) -> None:
        self.memo[int(place)] = self.stack[-1]

    def call(self, name: Any, arguments: Any) -> None:
        path = name.path if isinstance(name, Name) else ""
        arguments = arguments if isinstance(arguments, tuple) else ()
        if path in ("collections.OrderedDict", "builtins.dict", "__builtin__.dict"):
            pairs = arguments[0] if arguments and isinstance(arguments[0], (list, tuple)) else []
            self.stack.append(self.filled({}, [one for pair in pairs for one in (*pair, None)[:2]]))
        else:
            self.stack.append(Call(path, arguments))

    def build(self, state: Any) -> None:
        if isinstance(self.stack[-1], Call):
            self.stack[-1].state = state

    def extend(self, values: list) -> None:
        target = self.stack[-1]
        if isinstance(target, Call):
            target.values.extend(values)
        elif isinstance(target, list):
            target.extend(values)
        else:
            raise TypeError("it adds to what is no list")

    def fill(self, pairs: list) -> None:
        target = self.stack[-1]
        self.filled(target.items if isinstance(target, Call) else target, pairs)

    @staticmethod
    def filled(target: Any, pairs: list) -> dict:
        if not isinstance(target, dict):
            raise TypeError("it sets entries of what is no dict")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # To hash a nest of tuples can take for ever, and no name of a tensor is one.
            if isinstance(key, (str, int, float, bytes, bool)):
                target[key] = value
        return target


def describe(file: IO[bytes]) -> Any:
    """What the pickle at the place where `file` stands describes; the file then stands behind it.

    Raises:
        CorruptFileError: if it is no whole pickle.
    """
    machine = _Machine()
    try:
        for count, (operation, argument, _) in enumerate(pickletools.genops(file)):
            name = operation.name
            if count > MAXIMUM_OPERATIONS:
                raise ValueError("it is too long")
            if name in machine.steps:
                machine.steps[name](argument)
            elif name in _LITERALS:
                machine.stack.append(argument)
            elif name in _CONSTANTS:
                machine.stack.append(_CONSTANTS[name])
            elif name not in _IGNORED:
                raise ValueError(f"the operation {name} is not read")
        (found,) = machine.popped(1)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise CorruptFileError("a pickle that cannot be read", got=f"{type(error).__name__} {error}"[:200]) from error
    return found
