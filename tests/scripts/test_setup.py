"""The set-up of a fresh checkout, with a Python that only pretends to install: what is tested is the script."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"

STAND_IN = """#!/usr/bin/env bash
echo "$*" >>"{record}"
case "$1 $2" in
    "-m venv") rm -rf "$4"; mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
    "-m pip")
        if [ -e "{root}/broken" ]; then echo "the network is down"; exit 1; fi
        if [ -e "{root}/slow" ]; then sleep 2; fi
        printf '#!/usr/bin/env bash\\necho "ran $*"\\n' >"{root}/.venv/bin/weightgen"
        chmod +x "{root}/.venv/bin/weightgen" ;;
    "-m pytest") exit 5 ;;
esac
"""


class Checkout:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.record = root / "record"
        (root / "scripts").mkdir(parents=True)
        for name in ("setup.sh", "weightgen", "test"):
            shutil.copy(SCRIPTS / name, root / "scripts" / name)
        (root / "pyproject.toml").write_text("[project]\n")
        self.python = root / "python"
        self.python.write_text(STAND_IN.format(record=self.record, root=root))
        self.python.chmod(0o755)

    def start(self, script: str, *arguments: str, **options) -> subprocess.Popen:
        environment = {**os.environ, "PYTHON": str(self.python)}
        return subprocess.Popen(
            [script, *arguments], env=environment, cwd="/", text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
        )  # fmt: skip

    def call(self, name: str, *arguments: str) -> tuple[int, str, str]:
        process = self.start(str(self.root / "scripts" / name), *arguments)
        output, error = process.communicate(timeout=60)
        return process.returncode, output, error

    def installs(self) -> list[str]:
        """What was installed since the last call, without the probes of the Python's version."""
        lines = [line for line in self.record.read_text().splitlines() if line.startswith(("-m venv", "-m pip"))]
        self.record.write_text("")
        return [line.split("--no-input ")[-1] for line in lines]


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path / "a checkout")


def test_the_first_call_sets_up_and_the_second_does_not(checkout):
    code, output, error = checkout.call("weightgen", "inspect", "a b")
    assert (code, output) == (0, "ran inspect a b\n")
    assert "setting up .venv, one time" in error and "ready after" in error
    _, first, second = checkout.installs()
    assert first == "torch>=2.11 torchvision" and second == "--editable ."
    assert checkout.call("weightgen", "x") == (0, "ran x\n", "")
    assert checkout.installs() == []


def test_the_tests_need_more_and_pass_their_code_on(checkout):
    checkout.call("weightgen")
    checkout.installs()
    code, _, _ = checkout.call("test", "-k", "query")
    assert code == 5
    assert checkout.record.read_text().splitlines()[-1] == "-m pytest -k query"
    assert checkout.installs() == ["torch>=2.11 torchvision", "--editable .[test]"]
    assert checkout.call("weightgen", "x") == (0, "ran x\n", "")


def test_a_changed_project_is_installed_again(checkout):
    checkout.call("weightgen")
    checkout.installs()
    (checkout.root / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert checkout.call("weightgen", "x")[:2] == (0, "ran x\n")
    assert checkout.installs() == ["torch>=2.11 torchvision", "--editable ."]


def test_a_failure_says_why_and_is_made_good(checkout):
    (checkout.root / "broken").touch()
    code, output, error = checkout.call("weightgen", "x")
    assert (code, output) == (1, "")
    assert "the network is down" in error
    assert error.splitlines()[-1].startswith("error: setting up .venv failed while installing torch and torchvision")
    (checkout.root / "broken").unlink()
    checkout.installs()
    assert checkout.call("weightgen", "x")[:2] == (0, "ran x\n")
    assert checkout.installs()[0].startswith("-m venv")


def test_an_interrupted_set_up_is_made_anew(checkout):
    (checkout.root / "slow").touch()
    process = checkout.start(str(checkout.root / "scripts" / "weightgen"), start_new_session=True)
    while not (checkout.root / ".venv" / "bin" / "python").exists():
        time.sleep(0.05)
    time.sleep(0.3)
    # Not SIGINT, which a shell in the background hands down as ignored.
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode != 0 and not list((checkout.root / ".venv").glob("*.stamp"))
    (checkout.root / "slow").unlink()
    checkout.installs()
    assert checkout.call("weightgen", "x")[:2] == (0, "ran x\n")
    assert checkout.installs()[0].startswith("-m venv")


def test_a_checkout_that_moved_is_set_up_again(checkout):
    checkout.call("weightgen")
    moved = Checkout(checkout.root.parent / "elsewhere")
    shutil.copytree(checkout.root / ".venv", moved.root / ".venv")
    assert moved.call("weightgen", "x")[:2] == (0, "ran x\n")
    assert moved.installs()[0].startswith("-m venv")


@pytest.mark.skipif(shutil.which("flock") is None, reason="needs flock")
def test_two_first_calls_do_not_collide(checkout):
    (checkout.root / "slow").touch()
    processes = [checkout.start(str(checkout.root / "scripts" / "weightgen"), "x") for _ in range(2)]
    results = [process.communicate(timeout=60) for process in processes]
    assert [output for output, _ in results] == ["ran x\n", "ran x\n"]
    assert len(checkout.installs()) == 3


def test_it_works_through_a_link(checkout, tmp_path):
    (tmp_path / "link").symlink_to(checkout.root / "scripts" / "weightgen")
    process = checkout.start(str(tmp_path / "link"), "x")
    assert process.communicate(timeout=60)[0] == "ran x\n"


def test_without_a_python_it_says_so(checkout, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "dirname", "readlink", "rm"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    # A name that is there but does not run, as a version manager leaves it.
    (tools / "python3").write_text("#!/usr/bin/env false\n")
    (tools / "python3").chmod(0o755)
    script = checkout.root / "scripts" / "weightgen"
    found = subprocess.run(
        [tools / "bash", script, "x"], env={"PATH": str(tools)}, capture_output=True, text=True, timeout=60
    )
    assert found.returncode == 1 and found.stdout == ""
    assert found.stderr.splitlines()[-1].startswith("error: no Python of 3.11 or later")
