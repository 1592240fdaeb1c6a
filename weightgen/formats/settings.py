"""Reads the JSON and YAML files that lie beside networks; nothing in them is constructed but plain values."""

import json
from pathlib import Path
from typing import Any

MAXIMUM = 4 * 2**20
"""Bytes of a settings file."""


def read_json(path: Path) -> Any:
    """The content of a JSON file; an empty object if it is missing, too long or not JSON."""
    try:
        return json.loads(path.read_bytes()) if path.stat().st_size <= MAXIMUM else {}
    except (OSError, ValueError, RecursionError):
        return {}


def read_yaml(path: Path) -> dict[str, Any]:
    """The content of a YAML file, ordered dicts of Python included; an empty dict if it cannot be read."""
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML's safe loader, which makes plain values and nothing else."""

    def pairs(loader: Any, node: Any) -> dict:
        return {key: value for key, value in loader.construct_sequence(node, deep=True)[0]}

    Loader.add_constructor("tag:yaml.org,2002:python/object/apply:collections.OrderedDict", pairs)
    Loader.add_constructor("tag:yaml.org,2002:python/tuple", lambda loader, node: loader.construct_sequence(node))
    try:
        content = path.read_bytes() if path.stat().st_size <= MAXIMUM else b""
        # Merge keys within merge keys grow without bounds.
        found = {} if b"<<" in content else yaml.load(content, Loader)
    except (OSError, yaml.YAMLError, ValueError, TypeError, IndexError, AttributeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
