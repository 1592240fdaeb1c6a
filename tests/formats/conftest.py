import importlib.util
import sys
from pathlib import Path

import pytest

# Tests are imported one by one, without a package: what several of them use is loaded here once, by its path.
_path = Path(__file__).with_name("examples.py")
_spec = importlib.util.spec_from_file_location("format_examples", _path)
assert _spec and _spec.loader
sys.modules["format_examples"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules["format_examples"])


@pytest.fixture
def examples():
    """Name → a function that writes one source of that format into a folder."""
    return sys.modules["format_examples"].EXAMPLES
