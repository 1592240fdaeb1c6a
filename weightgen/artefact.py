"""Trained artefacts on disk: a folder with `config.json`, `model.safetensors` and a card, `README.md`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightgen.errors import CorruptFileError, MissingDataError
from weightgen.storage import read_tensors, write_tensors, write_text

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, MODEL, CARD = "config.json", "model.safetensors", "README.md"


def write_artefact(
    folder: Path | str, kind: str, config: Mapping[str, Any], tensors: Mapping[str, "Tensor"], card: str
) -> None:
    """Writes the three files, each atomically; the config stands in the model's header too, under its digest."""
    folder = Path(folder)
    content = {"kind": kind, **config}
    write_tensors(folder / MODEL, tensors, content)
    write_text(folder / CONFIG, json.dumps(content, indent=2, sort_keys=True) + "\n")
    write_text(folder / CARD, card)


def read_artefact(folder: Path | str, kind: str) -> tuple[dict[str, Any], dict[str, "Tensor"]]:
    """Config and tensors of a folder of `write_artefact`.

    Raises:
        MissingDataError: if it is not there.
        CorruptFileError: if it is damaged, of another kind, or its config is not that of its model.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except OSError as error:
        raise MissingDataError(f"no {kind} there", where=folder, expected=f"{CONFIG} and {MODEL}") from error
    except (ValueError, RecursionError) as error:
        raise CorruptFileError("the config cannot be read", where=folder / CONFIG, remedy="fetch it again") from error
    header, tensors = read_tensors(folder / MODEL)
    if header != config:
        raise CorruptFileError(
            "the config is not the one the model was saved with", where=folder / CONFIG, remedy="fetch both again"
        )
    if config.get("kind") != kind:
        raise CorruptFileError("an artefact of another kind", where=folder, got=config.get("kind"), expected=kind)
    return config, tensors


def read_kind(folder: Path | str) -> str:
    """The kind of an artefact, from its config alone.

    Raises:
        MissingDataError: if it is not there.
        CorruptFileError: if its config is damaged.
    """
    path = Path(folder) / CONFIG
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["kind"])
    except OSError as error:
        raise MissingDataError("no artefact there", where=folder, expected=f"{CONFIG} and {MODEL}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptFileError("the config cannot be read", where=path, remedy="fetch it again") from error


def is_artefact(folder: Path | str, kind: str) -> bool:
    """Whether a folder says of itself that it holds an artefact of this kind; nothing else of it is read."""
    try:
        config = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and config.get("kind") == kind


def push_to_hub(folder: Path | str, repository: str, **options: Any) -> str:
    """Uploads the folder of an artefact to the Hugging Face hub and returns the address of the commit."""
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo(repository, exist_ok=True)
    return api.upload_folder(repo_id=repository, folder_path=str(folder), **options).commit_url


def part(tensors: Mapping[str, "Tensor"], prefix: str) -> dict[str, "Tensor"]:
    """The tensors whose names begin with `prefix/`, without it."""
    return {
        name.removeprefix(f"{prefix}/"): tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}/")
    }
