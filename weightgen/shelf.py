"""The shelves: folders of artefacts that ship with weightgen and are found by name."""

from pathlib import Path
from typing import Literal

from weightgen.registry import unknown_name

Kind = Literal["zoo", "tokenizers", "checkpoints"]

WORDS: dict[Kind, str] = {"zoo": "zoo", "tokenizers": "tokenizer", "checkpoints": "generator"}
"""What one thing on each shelf is called."""


def shelf(kind: Kind, name_or_path: Path | str) -> Path:
    """The folder of an artefact: a folder that exists is itself, anything else is a name on the shelf.

    Raises:
        UnknownNameError: if it is neither; it names the near ones.
    """
    path = Path(name_or_path)
    if path.is_dir():
        return path
    names = shelf_names(kind)
    if str(name_or_path) not in names:
        raise unknown_name(
            f"{WORDS[kind]} (neither a folder nor a name on the shelf)", str(name_or_path), names,
            remedy="give one of these names, or the path of a folder",
        )  # fmt: skip
    return _folder(kind) / path


def shelf_names(kind: Kind) -> list[str]:
    """The names on a shelf, sorted."""
    folder = _folder(kind)
    if not folder.is_dir():
        return []
    return sorted(item.name for item in folder.iterdir() if item.is_dir() and not item.name.startswith((".", "_")))


def _folder(kind: Kind) -> Path:
    """The checkout's shelf if this is one, else the one inside the installed package."""
    package = Path(__file__).resolve().parent
    if (package.parent / "pyproject.toml").is_file():
        return package.parent / kind
    return package / "shelves" / kind
