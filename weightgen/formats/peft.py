"""Adapters of PEFT (LoRA and its kin): the change to a base model, which the card names as its parent."""

from pathlib import Path

from weightgen.checkpoint import Card
from weightgen.formats.format import Network, register
from weightgen.formats.safetensors_file import opened
from weightgen.formats.settings import read_json
from weightgen.formats.tensors import clean, facts, made_with, network
from weightgen.formats.torch_file import tensors_of

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


def _recognises(path: Path, head: bytes) -> bool:
    return path.is_dir() and (path / CONFIG).is_file() and any((path / name).is_file() for name in WEIGHTS)


@register("peft", "PEFT adapter", _recognises)
def read(path: Path) -> list[Network]:
    """The one adapter of a folder."""
    config = read_json(path / CONFIG)
    config = config if isinstance(config, dict) else {}
    base = config.get("base_model_name_or_path")
    card = Card(
        origin="ingested", hyperparameters=facts(config), tags=("adapter",), made_with=made_with("peft", path),
        parents=(clean(base),) if isinstance(base, str) and base else (),
    )  # fmt: skip
    safe, pickled = (path / name for name in WEIGHTS)
    if safe.is_file():
        kinds, _, tensor, pieces = opened(safe)
        return [Network("", network(kinds, tensor, card, path, pieces=pieces))]
    kinds, read_one = tensors_of(pickled)
    return [Network("", network(kinds, read_one, card, path))]
