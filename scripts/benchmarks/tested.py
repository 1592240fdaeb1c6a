"""Modules of the tests by their path: what benchmarks and tests share is written once, beside the tests."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

TESTS = Path(__file__).resolve().parents[2] / "tests"


def tested(path: str) -> ModuleType:
    """The module `tests/PATH`, which is run when it is first asked for."""
    name = f"tested_{Path(path).stem}"
    if name not in sys.modules:
        specification = importlib.util.spec_from_file_location(name, TESTS / path)
        assert specification is not None and specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        sys.modules[name] = module
        specification.loader.exec_module(module)
    return sys.modules[name]
