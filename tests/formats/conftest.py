"""Loads what several of these tests use, by its path: tests are imported one by one and without a package."""

import importlib.util
import sys
from pathlib import Path

for _name in ("examples", "fuzzing"):
    _specification = importlib.util.spec_from_file_location(f"format_{_name}", Path(__file__).with_name(f"{_name}.py"))
    assert _specification and _specification.loader
    sys.modules[f"format_{_name}"] = importlib.util.module_from_spec(_specification)
    _specification.loader.exec_module(sys.modules[f"format_{_name}"])
