"""The networks that tracing is tested on."""

import importlib.util
import sys
from pathlib import Path

_PATH = Path(__file__).with_name("networks.py")
_SPECIFICATION = importlib.util.spec_from_file_location("structure_networks", _PATH)
assert _SPECIFICATION is not None and _SPECIFICATION.loader is not None
networks = importlib.util.module_from_spec(_SPECIFICATION)
sys.modules["structure_networks"] = networks
_SPECIFICATION.loader.exec_module(networks)
