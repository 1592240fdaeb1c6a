"""One network from whatever names it: a file of any format, a folder, or a recipe such as `timm/resnet18`."""

import socket
from pathlib import Path

import torch

from weightgen.architecture import Architecture
from weightgen.checkpoint import Card, Checkpoint
from weightgen.errors import MissingDataError
from weightgen.formats.format import format_of, read
from weightgen.formats.safetensors_file import opened
from weightgen.registry import unknown_name
from weightgen.storage import METADATA_KEY, read_header

RECIPES = ("timm/", "torchvision/", "transformers/", "diffusers/", "weightgen/")
HUB = ("huggingface.co", 443)
PATIENCE = 3.0
"""Seconds to wait for the hub; timm itself would try for minutes."""


def open_network(source: Path | str, part: str | None = None) -> Checkpoint:
    """The network of a path, or that of a recipe.

    Pretrained weights of timm come from the hub; where it cannot be reached, and for every other recipe, the weights
    are random, of seed 0, and the Card says so: `origin` is `random`.

    Args:
        part: which of the networks of a path, if it holds several.

    Raises:
        MissingDataError: if there is no such path.
        UnknownNameError: if the recipe is not known, or no part is named where there are several.
        CorruptFileError: if the path is of no known format, or damaged.
    """
    name = str(source)
    if name.startswith(RECIPES) and not Path(name).exists():
        return _from_recipe(name)
    if _ours(Path(source)):
        return Checkpoint.load(source)
    networks = read(source)
    parts = {network.part: network.checkpoint for network in networks}
    if part is None and len(networks) == 1:
        return networks[0].checkpoint
    if part not in parts:
        raise unknown_name(f"part of {source}", part or "", parts, remedy="name one of these with --part")
    return parts[part]


def _ours(path: Path) -> bool:
    """Whether a file is one of ours, or claims it by its name: what is wrong with it, `Checkpoint.load` says best."""
    if not path.is_file():
        return False
    found = format_of(path)
    if found == "safetensors":
        return METADATA_KEY in opened(path)[1] and read_header(path)[0].get("kind") != "zoo blob"
    return found is None and path.suffix == ".safetensors"


def _from_recipe(name: str) -> Checkpoint:
    if name.startswith("timm/") and "?" not in name and _reachable():
        try:
            return read(name)[0].checkpoint
        except MissingDataError:
            pass  # not every model of timm has weights
    architecture = Architecture.parse(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tensors = architecture.build().state_dict()
    return Checkpoint(architecture, tensors, Card(origin="random", made_with={"recipe": name, "seed": 0}))


def _reachable() -> bool:
    try:
        socket.create_connection(HUB, PATIENCE).close()
    except OSError:
        return False
    return True
