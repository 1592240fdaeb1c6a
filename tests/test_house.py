"""Guards of the house: what may stand where, and which module may import which."""

import ast
import shlex
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import cyclopts
import pytest
from rich.console import Console

from weightgen.cli import app

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "weightgen"
SHELVES = ("zoo", "tokenizers", "checkpoints")
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 450

ORDER = [
    "cli",
    *("generation", "morphing", "alignment"),
    *("generators", "processors", "zoo"),
    *("tokenizers", "evaluation", "formats"),
    *("training", "checkpoint"),
    *("tasks", "architecture", "families", "sizes"),
    *("structure", "instructions", "fields"),
    *("kernels", "networks", "libraries", "shelf", "artefact", "storage", "registry", "errors"),
]
"""A module imports its own package and what stands further down; within a layer, what stands to its right."""


def python(code: str) -> str:
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


@pytest.mark.parametrize("name", SHELVES)
def test_shelves_hold_no_python(name):
    assert (ROOT / name / "README.md").is_file()
    assert not [path for path in (ROOT / name).rglob("*") if path.suffix in (".py", ".pyc", ".pyi", ".so", ".pkl")]


@pytest.mark.slow
def test_shelves_hide_no_library():
    code = "import tokenizers, transformers; from transformers import AutoTokenizer; print(tokenizers.__file__)"
    assert "site-packages" in python(code)


HEAVY = "print([name for name in ('torch', 'numpy', 'transformers', 'timm', 'sklearn') if name in sys.modules])"


def test_the_package_is_imported_without_torch():
    assert python(f"import sys, weightgen; dir(weightgen); {HEAVY}") == "[]"


@pytest.mark.parametrize("arguments", [["--help"], [], ["zoo", "--help"], ["evaluate", "--help"], ["--version"]])
def test_help_is_printed_without_torch(arguments):
    printed = python(f"import sys; from weightgen.cli import main; assert main({arguments!r}) == 0; {HEAVY}")
    assert printed.splitlines()[-1] == "[]" and len(printed.splitlines()) > 1


def test_what_the_package_promises_is_there():
    import weightgen

    assert set(weightgen.__all__) == {*weightgen._HOMES, "__version__"}
    for name in weightgen.__all__:
        assert getattr(weightgen, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        weightgen.nothing  # noqa: B018, the access is the test


def unit(path: Path) -> str:
    """The part of the house a file belongs to: a package or module right under weightgen."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_units(path: Path) -> Iterator[tuple[int, str]]:
    """Line and unit of every import from weightgen, within functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "weightgen" and parts[1:2] not in ([], ["__version__"]):
                yield node.lineno, parts[1]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    own = unit(path)
    if own in ("__init__", "__main__"):
        pytest.skip("the package's front door names what is public")
    assert own in ORDER, f"weightgen/{own} has no place in the order of imports"
    for line, other in imported_units(path):
        assert other in ORDER, f"{path}:{line}: import '{other}' from where it lives"
        assert other == own or ORDER.index(other) > ORDER.index(own), f"{path}:{line}: {own} may not import {other}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_short_and_say_what_they_are(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST
    assert ast.get_docstring(ast.parse(text)), "a module begins with what it is"


def commands(parent: cyclopts.App = app, chain: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], cyclopts.App]]:
    for name, command in parent.resolved_commands().items():
        if name.startswith("-"):
            continue
        below = list(commands(command, (*chain, name)))
        if below:
            yield from below
        else:
            yield (*chain, name), command


def test_every_command_shows_an_example_that_is_right_usage():
    for chain, command in commands():
        screen = StringIO()
        app.help_print(list(chain), console=Console(file=screen, width=300))
        examples = [line.strip() for line in screen.getvalue().splitlines() if "Example: weightgen" in line]
        assert examples, f"weightgen {' '.join(chain)} has no line 'Example: weightgen …'"
        for example in examples:
            tokens = shlex.split(example.split("Example: ", 1)[1])
            assert tuple(tokens[1 : len(chain) + 1]) == chain, example
            function, *_ = app.parse_args(tokens[1:], exit_on_error=False, print_error=False)
            assert function is command.default_command


def test_commands_are_calls_into_the_library():
    for chain, command in commands():
        source = Path(sys.modules[command.default_command.__module__].__file__).read_text(encoding="utf-8")
        name = command.default_command.__name__
        function = next(
            node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == name
        )
        start = function.body[1].lineno if ast.get_docstring(function) else function.body[0].lineno
        assert function.end_lineno - start < 20, f"weightgen {' '.join(chain)} holds logic"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from the source archive as an installer would."""
    folder = tmp_path_factory.mktemp("built")
    build(ROOT, "sdist", folder)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    build(next(path for path in folder.iterdir() if path.is_dir()), "wheel", folder)
    return next(folder.glob("*.whl"))


def build(source: Path, target: str, folder: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    found = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.slow
def test_the_wheel_holds_one_package_with_the_shelves(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"weightgen"}
    for shelf in SHELVES:
        shipped = {name.split("shelves/")[1] for name in names if name.startswith(f"weightgen/shelves/{shelf}/")}
        files = {str(path.relative_to(ROOT)) for path in (ROOT / shelf).rglob("*") if path.is_file()}
        # What a training or an open catalogue leaves beside them for a while is hidden or has these ends.
        assert shipped == {name for name in files if "/." not in name and not name.endswith(("-wal", "-shm"))}
    assert {str(path.relative_to(ROOT)) for path in MODULES} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
