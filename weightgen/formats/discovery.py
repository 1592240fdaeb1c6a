"""Finds what can be read below a path, and says of everything else why it is passed over."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from weightgen.errors import MissingDataError
from weightgen.formats.format import format_of
from weightgen.formats.sharded import members
from weightgen.formats.tensors import clean

SUFFIXES = (
    ".safetensors.index.json", ".bin.index.json", ".safetensors", ".pt", ".pth", ".th", ".ckpt", ".bin", ".zip", ".npz",
    ".npy", ".nnet", ".json", ".onnx", ".pkl",
)  # fmt: skip
"""Endings that say how a network is stored and nothing about it."""


BESIDE = ("config.yml", "config.yaml", "hparams.yaml", "evaluations.npz")
"""Files that readers look into beside a network."""


@dataclass(frozen=True)
class Source:
    """A file or folder that was looked at.

    Args:
        path: where it is.
        name: what its network is called: the path below the folder that was searched, without the ending.
        format: the format it is read as; None if it is passed over.
        reason: why it is passed over.
    """

    path: Path
    name: str
    format: str | None
    reason: str = ""


def discover(path: Path | str) -> Iterator[Source]:
    """Everything below a path, in the order of names; links to folders are not followed.

    Raises:
        MissingDataError: if there is no such path.
    """
    path = Path(path)
    if not path.exists():
        if str(path).startswith("timm/"):
            yield Source(path, str(path), "timm")
            return
        raise MissingDataError("no such file or folder", where=clean(str(path)))
    if path.is_dir():
        yield from _folder(path, path)
    else:
        yield _source(path, path.parent)


def _folder(folder: Path, root: Path) -> Iterator[Source]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        yield Source(folder, _name(folder, root), None, f"cannot be opened: {error.strerror}")
        return
    whole = _source(folder, root)
    if whole.format is not None:
        yield whole
    else:
        files = [_source(Path(entry.path), root) for entry in entries if not entry.is_dir()]
        parts = {folder / name for one in files if one.format == "sharded" for name in _members(one.path)}
        for one in files:
            yield Source(one.path, one.name, None, "a shard of another file") if one.path in parts else one
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink() and not entry.name.startswith("."):
            yield from _folder(Path(entry.path), root)


def _members(path: Path) -> set[str]:
    try:
        return members(path)
    except Exception:
        # What is wrong with an index is said when it is read.
        return set()


def _source(path: Path, root: Path) -> Source:
    name = _name(path, root)
    if path.name.startswith(".") and path != root:
        return Source(path, name, None, "hidden")
    if not path.is_file() and not path.is_dir():
        return Source(path, name, None, "neither a file nor a folder")
    try:
        if path.is_file() and path.stat().st_size == 0:
            return Source(path, name, None, "empty")
        found = format_of(path)
    except OSError as error:
        return Source(path, name, None, f"cannot be opened: {error.strerror}")
    if found is None and path.name in BESIDE:
        return Source(path, name, None, "what is known of the networks beside it")
    return Source(path, name, found, "" if found else "of no format that is read")


def _name(path: Path, root: Path) -> str:
    relative = path.relative_to(root).as_posix() if path != root else path.resolve().name
    ending = next((each for each in SUFFIXES if relative.endswith(each) and relative != each), "")
    return clean(relative.removesuffix(ending) if path.is_file() else relative)
