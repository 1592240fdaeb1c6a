"""Which networks a saved object holds: state dicts within wrappers, beside optimisers, counters and figures."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightgen.checkpoint import Card
from weightgen.errors import CorruptFileError
from weightgen.formats.format import Network
from weightgen.formats.pickles import Call
from weightgen.formats.tensors import facts, network, split_facts

if TYPE_CHECKING:
    from torch import Tensor

    from weightgen.formats.torch_file import Stored

LEFT_OUT = re.compile(r"optim|scheduler|lr_sched|scaler|rng|amp\b|_metadata", re.IGNORECASE)
"""Entries that hold no network though they may hold tensors."""

WRAPPER_WORDS = ("model_state_dict", "state_dict", "model", "module", "network", "net", "weights", "params")
"""Names of entries that say only that a network is within."""

SETTINGS = ("args", "config", "cfg", "hparams", "hyper_parameters", "hyperparameters", "options", "opt")
"""Names of entries whose own entries are settings."""

MAXIMUM_DEPTH = 12

Flat = dict[str, "Stored"]


def found_in(content: Any, read: Callable[["Stored"], "Tensor"], path: Path, made_with: dict) -> list[Network]:
    """The networks of a saved object.

    Args:
        content: dicts, lists and `Stored` tensors.
        read: gives the values of one tensor.

    Raises:
        CorruptFileError: if there is no tensor in it.
    """
    parts, beside = _parts(content)
    if not parts:
        raise CorruptFileError("no network in it", where=path, expected="a dict or a list of tensors")
    settings, metrics = split_facts(_settings(beside, read))
    card = Card(origin="ingested", hyperparameters=settings, metrics=metrics, made_with=made_with)
    return [Network(name, _network(flat, read, card, path)) for name, flat in parts.items()]


def _network(flat: Flat, read: Callable[["Stored"], "Tensor"], card: Card, path: Path) -> Any:
    kinds = {name: (stored.kind, stored.shape) for name, stored in flat.items()}
    return network(kinds, lambda name: read(flat[name]), card, path)


def _parts(content: Any) -> tuple[dict[str, Flat], dict[str, Any]]:
    """Part → its tensors, and what stands beside them."""
    if not isinstance(content, dict):
        flat = flattened(content)
        if not isinstance(content, Call):
            # A bare list has no names to give.
            flat = {f"tensor{name}": one for name, one in flat.items()}
        return ({"": flat} if flat else {}), {}
    entries = {str(key): value for key, value in content.items() if not LEFT_OUT.search(str(key))}
    inner = {key: flattened(value) for key, value in entries.items() if isinstance(value, (dict, list, Call))}
    inner = {key: flat for key, flat in inner.items() if flat}
    direct = {key: value for key, value in entries.items() if _is_tensor(value) and value.size != 1}
    beside = {key: value for key, value in entries.items() if key not in inner}
    if direct or not inner:
        # A state dict itself; a single value such as a temperature belongs to it as well.
        return ({"": flattened(entries)} if flattened(entries) else {}), beside
    if len(inner) == 1:
        ((key, value),) = ((key, entries[key]) for key in inner)
        # `{"model": {"state_dict": …, "epoch": 3}}`: the wrapper may be wrapped.
        if isinstance(value, dict) and any(word in value for word in WRAPPER_WORDS):
            parts, more = _parts(value)
            return parts, {**more, **beside}
        return {"": inner[key]}, beside
    return {_part_name(key): flat for key, flat in inner.items()}, beside


def _part_name(key: str) -> str:
    """`model_coarse_state_dict` is the part `coarse`."""
    name = key.removesuffix("_state_dict").removesuffix("_dict").removeprefix("model_").removeprefix("net_")
    return name or key


def flattened(value: Any) -> Flat:
    """All tensors within, named by their path; the tensors of a saved module are found without making the module."""
    found: Flat = {}
    seen: set[int] = set()

    def walk(one: Any, name: str, depth: int) -> None:
        if _is_tensor(one):
            found[name] = one
        elif isinstance(one, (dict, list, tuple, Call)) and depth < MAXIMUM_DEPTH and id(one) not in seen:
            seen.add(id(one))
            for key, item in _entries(one):
                walk(item, f"{name}.{key}" if name and key else name or key, depth + 1)

    walk(value, "", 0)
    return found


def _entries(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Call):
        state = value.state if isinstance(value.state, dict) else {}
        if "_modules" not in state:
            return [*((str(key), item) for key, item in value.items.items())]
        return [("", state.get(kind) or {}) for kind in ("_parameters", "_buffers", "_modules")]
    if isinstance(value, dict):
        return [(str(key), item) for key, item in value.items() if not LEFT_OUT.search(str(key))]
    return [(str(index), item) for index, item in enumerate(value)]


def _settings(beside: dict[str, Any], read: Callable[["Stored"], "Tensor"]) -> dict[str, Any]:
    """The scalars beside the networks, tensors of one value among them."""
    values: dict[str, Any] = {}
    for key, value in beside.items():
        if isinstance(value, Call) and isinstance(value.state, dict):
            value = value.state
        if _is_tensor(value) and value.size == 1:
            values[key] = read(value).item()
        elif key in SETTINGS and isinstance(value, dict):
            values.update(facts(value))
        elif not _is_tensor(value):
            values[key] = value
    return facts(values)


def _is_tensor(value: Any) -> bool:
    from weightgen.formats.torch_file import Stored

    return isinstance(value, Stored)
