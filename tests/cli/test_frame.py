import subprocess
import sys
from pathlib import Path

import pytest

from weightgen import cli
from weightgen.cli import main
from weightgen.cli.output import print_json, progress, table
from weightgen.errors import WeightgenError


def run(*arguments: str, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "weightgen", *arguments]
    return subprocess.run(command, text=True, stderr=subprocess.PIPE, timeout=60, **options)


@pytest.fixture
def raising(monkeypatch):
    """Makes `weightgen evaluate FILE --task T` raise what it is given."""

    def install(error: BaseException) -> None:
        def opened(source):
            raise error

        monkeypatch.setattr("weightgen.formats.opening.open_network", opened)

    return install


EVALUATE = ["evaluate", "some.safetensors", "--task", "digits"]


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (WeightgenError("it broke", where="here"), 1, "error: it broke; in here"),
        (OSError(28, "No space left on device", "a/b"), 1, "in a/b; got No space left on device"),
        (PermissionError(13, "Permission denied"), 1, "got Permission denied"),
        (ValueError("two\nlines"), 1, "error: unexpected ValueError: two lines; run it again with --debug"),
        (MemoryError(), 1, "error: unexpected MemoryError"),
        (KeyboardInterrupt(), 130, "error: interrupted"),
    ],
)
def test_an_error_is_one_line_and_a_code(raising, capsys, error, code, line):
    raising(error)
    assert main(EVALUATE) == code
    printed = capsys.readouterr()
    assert printed.out == "" and line in printed.err and printed.err.count("\n") == 1


@pytest.mark.parametrize("position", [0, 1, 4])
def test_debug_anywhere_shows_the_traceback(raising, position):
    raising(WeightgenError("it broke"))
    with pytest.raises(WeightgenError, match="it broke"):
        main([*EVALUATE[:position], "--debug", *EVALUATE[position:]])


def test_a_reader_that_leaves_is_no_error(raising, capsys):
    raising(BrokenPipeError())
    assert main(EVALUATE) == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["evaluat"], 'Unknown command "evaluat". Did you mean "evaluate"?'),
        (["evaluate"], "--checkpoint requires an argument"),
        (["evaluate", "a", "--task", "digits", "--split", "all"], 'Choose from: "train", "validation", "test"'),
        (["inspect", "a", "--jsn"], "Did you mean --json?"),
        (["zoo", "quary"], 'Unknown command "quary". Did you mean "query"?'),
    ],
)
def test_wrong_usage_is_two_lines_and_2(capsys, arguments, line):
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and line in printed.err and printed.err.count("\n") == 2
    assert "try: weightgen" in printed.err


def test_a_real_error_in_a_real_process(tmp_path):
    found = run("inspect", str(tmp_path / "no.safetensors"), stdout=subprocess.PIPE)
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr == f"error: no such file or folder; in {tmp_path / 'no.safetensors'}\n"
    found = run("--debug", "inspect", str(tmp_path / "no.safetensors"), stdout=subprocess.PIPE)
    assert found.returncode == 1 and "Traceback" in found.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line():
    with open("/dev/full", "w") as full:
        found = run("--version", stdout=full)
    assert found.returncode == 1
    assert found.stderr == "error: a file cannot be read or written; got No space left on device\n"


def test_a_closed_pipe_is_quiet():
    process = subprocess.Popen(
        [sys.executable, "-m", "weightgen", "--version"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 1 and error == b""


def test_the_version_is_that_of_the_package(capsys):
    import weightgen

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{weightgen.__version__}\n"


def test_no_arguments_are_help(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in cli.COMMANDS)


def test_json_has_no_nan(capsys):
    print_json({"a": float("nan"), "b": (1, float("inf")), "path": Path("x")})
    assert capsys.readouterr().out == '{\n  "a": null,\n  "b": [\n    1,\n    null\n  ],\n  "path": "x"\n}\n'


def test_a_table_in_a_pipe_keeps_its_lines_whole(capsys):
    long = "x" * 300
    table("[title]", ["name", "value"], [["[red]a[/]", long], [1, None]])
    assert f"[red]a[/]  {long}" in capsys.readouterr().out


def test_progress_is_silent_without_a_terminal(capsys):
    with progress("work") as update:
        update(1, 2, "half")
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""


def test_progress_draws_on_the_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with progress("work") as update:
        update(1, 2, "half")
    printed = capsys.readouterr()
    assert printed.out == "" and "work" in printed.err
