"""Folders of `save_pretrained`: transformers models and the models of a diffusers pipeline, with their config."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightgen.architecture import Architecture
from weightgen.checkpoint import Card
from weightgen.errors import MissingDataError
from weightgen.formats.format import Network, register
from weightgen.formats.safetensors_file import opened
from weightgen.formats.settings import read_json
from weightgen.formats.sharded import shards
from weightgen.formats.tensors import Kinds, Pieces, facts, made_with, network
from weightgen.formats.torch_file import tensors_of
from weightgen.libraries import recipe_options

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, PIPELINE = "config.json", "model_index.json"

WEIGHTS = (
    "model.safetensors", "model.safetensors.index.json", "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json", "diffusion_pytorch_model.fp16.safetensors", "pytorch_model.bin",
    "pytorch_model.bin.index.json", "diffusion_pytorch_model.bin",
)  # fmt: skip
"""The files that hold weights; of several in one folder the first is read."""


def weights_file(folder: Path) -> Path | None:
    """The file that holds the weights of a folder, or their index."""
    return next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)


def weights(folder: Path) -> tuple[Kinds, Callable[[str], "Tensor"], Pieces | None]:
    """Kinds of all tensors of a folder, and the functions that read one."""
    path = weights_file(folder)
    if path is None:
        raise MissingDataError("no weights in the folder", where=folder, expected=", ".join(WEIGHTS))
    if path.name.endswith(".json"):
        return shards(path)
    if path.suffix == ".bin":
        return *tensors_of(path), None
    kinds, _, tensor, pieces = opened(path)
    return kinds, tensor, pieces


def config_of(folder: Path) -> dict[str, Any]:
    """The config of a folder; nothing if it is not a JSON object."""
    found = read_json(folder / CONFIG)
    return found if isinstance(found, dict) else {}


def _recognises(path: Path, head: bytes) -> bool:
    if head or not path.is_dir() or weights_file(path) is None:
        return False
    config = config_of(path)
    return isinstance(config.get("model_type"), str) or isinstance(config.get("_class_name"), str)


@register("huggingface", "Hugging Face folder", _recognises)
def read(path: Path) -> list[Network]:
    """The one model of a folder."""
    config = config_of(path)
    library = "diffusers" if "_class_name" in config else "transformers"
    pipeline = read_json(path.parent / PIPELINE)
    more = {"pipeline": pipeline["_class_name"]} if isinstance(pipeline, dict) and "_class_name" in pipeline else {}
    settings = facts({"library": library, **config, **more})
    card = Card(origin="ingested", hyperparameters=settings, made_with=made_with("huggingface", path))
    kinds, read_one, pieces = weights(path)
    return [Network("", network(kinds, read_one, card, path, _architecture(library, config), pieces))]


def _architecture(library: str, config: dict[str, Any]) -> Architecture | None:
    """The recipe of a config; None if the library has no such model, or it needs what no recipe may name."""
    try:
        family, options = recipe_options(library, config)
        return Architecture.of(family, **options)
    except Exception:
        # The config of a model that this version does not know may fail in any way; its tensors are still read.
        return None
