"""The README's figures are those of the committed results."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_figures_come_from_the_results():
    script = ROOT / "scripts" / "benchmarks" / "readme.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_its_picture_is_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "scripts/benchmarks/results/starter.png" in text
    assert (ROOT / "scripts" / "benchmarks" / "results" / "starter.png").is_file()
