"""What a reader is: it recognises a file or folder by its content and gives the networks in it, tensors on demand."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from weightgen.checkpoint import Checkpoint
from weightgen.errors import CorruptFileError, MissingDataError, WeightgenError
from weightgen.formats.tensors import damaged
from weightgen.registry import Registry

__all__ = ["Format", "Network", "damaged", "format_of", "formats", "read", "read_as", "register"]

HEAD = 4096
"""Bytes at the beginning of a file by which it is recognised."""

READERS = (
    "safetensors_file", "sharded", "torch_file", "stable_baselines", "huggingface", "peft", "timm_model", "numpy_file",
    "nnet", "estool", "onnx_file",
)  # fmt: skip
"""The modules of this package that register a format."""


@dataclass(frozen=True)
class Network:
    """One network of a source.

    Args:
        part: what tells it from the others of its source, such as `coarse`; empty if it is alone.
        checkpoint: its tensors are read when they are asked for; its Card holds what the source tells.
    """

    part: str
    checkpoint: Checkpoint


@dataclass(frozen=True)
class Format:
    """A kind of file or folder that networks are kept in.

    Args:
        title: what it is called in error texts.
        recognises: whether a path is of this kind; gets the path and the first `HEAD` bytes, nothing for a folder.
        read: the networks of a path that was recognised.
    """

    title: str
    recognises: Callable[[Path, bytes], bool]
    read: Callable[[Path], list[Network]]


_formats: Registry[Format] = Registry("format")


def register(name: str, title: str, recognises: Callable[[Path, bytes], bool]) -> Callable:
    """A decorator for the function that reads the networks of a path."""

    def add(function: Callable[[Path], list[Network]]) -> Callable[[Path], list[Network]]:
        _formats.add(name, Format(title, recognises, function))
        return function

    return add


def formats() -> Registry[Format]:
    """All formats by name."""
    for module in READERS:
        importlib.import_module(f"weightgen.formats.{module}")
    return _formats


def format_of(path: Path) -> str | None:
    """The name of the format of a file or folder, None if it is none that is read."""
    head = b""
    if path.is_file():
        with open(path, "rb") as file:
            head = file.read(HEAD)
        if not head:
            return None
    known = formats()
    for name in known:
        try:
            if known[name].recognises(path, head):
                return name
        except Exception:
            # A file that confuses a recogniser, in whatever way, is not of its kind.
            continue
    return None


def read(path: Path | str) -> list[Network]:
    """The networks of a file or folder.

    Raises:
        MissingDataError: if there is no such path.
        CorruptFileError: if it is of no known format, or damaged.
    """
    path = Path(path)
    if not path.exists():
        if str(path).startswith("timm/"):
            from weightgen.formats.timm_model import download

            return [Network("", download(str(path).removeprefix("timm/")))]
        raise MissingDataError("no such file or folder", where=path)
    name = format_of(path)
    if name is None:
        raise CorruptFileError(
            "of no format that is read", where=path,
            expected="one of: " + ", ".join(formats()[each].title for each in formats()),
        )  # fmt: skip
    return read_as(name, path)


def read_as(name: str, path: Path) -> list[Network]:
    """The networks of a path whose format is known; whatever a parser makes of garbage is a named error."""
    found = formats()[name]
    try:
        return found.read(path)
    except WeightgenError:
        raise
    except Exception as error:
        # Parsers of a dozen kinds raise whatever they like when they are fed garbage.
        raise damaged(path, f"{type(error).__name__} {error}", found.title) from error
