"""Damaged files of every format; `scripts/benchmarks/fuzz` reads many more of them."""

import random
import sys
import warnings
from collections import Counter
from pathlib import Path

import pytest
from format_examples import EXAMPLES
from format_fuzzing import Forbidden, damaged, files_of, outcome, watched

ROUNDS = 60


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_damaged_source_is_a_network_or_a_named_error(name, tmp_path):
    path = EXAMPLES[name](tmp_path)
    originals = files_of(path)
    assert outcome(path) == "network"
    found: Counter[str] = Counter()
    with warnings.catch_warnings():
        # Libraries warn of what they find odd; it is their right.
        warnings.simplefilter("ignore")
        for seed in range(ROUNDS):
            damaged(path, originals, random.Random(f"{name} {seed}"))
            found[outcome(path)] += 1
    assert found["error"] + found["unknown"] > 0 and sum(found.values()) == ROUNDS


def test_the_watch_sees_what_it_should(tmp_path):
    with pytest.raises(Forbidden, match="open"), watched():
        (tmp_path / "x").write_text("x")
    with pytest.raises(Forbidden, match="mkdir"), watched():
        (tmp_path / "y").mkdir()
    (tmp_path / "y").mkdir()
    assert sys.platform and Path(tmp_path / "y").is_dir()
