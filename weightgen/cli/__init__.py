"""The command line: one noun or verb, then options; results on stdout, progress and errors on stderr.

Exit codes: 0 done, 1 an error in one line, 2 wrong usage, 130 interrupted.
"""

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter

import weightgen
from weightgen.errors import OutputError, WeightgenError

app = App(
    name="weightgen",
    help="Neural-network weights as data: question zoos of networks, tokenize weights, generate new networks.\n\n"
    'Example: weightgen generate "a small CNN that reads handwritten digits, under 5k parameters" '
    "--out digits.safetensors\n\nWith --debug anywhere on the line, an error shows its traceback.",
    version=weightgen.__version__,
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,
)

COMMANDS = {
    "generate": "weightgen.cli.generate:generate",
    "morph": "weightgen.cli.morph:morph",
    "evaluate": "weightgen.cli.checkpoint:evaluate",
    "inspect": "weightgen.cli.inspect:inspect",
    "zoo": "weightgen.cli.zoo:app",
    "train": "weightgen.cli.train:app",
    "tokenize": "weightgen.cli.tokens:tokenize",
    "detokenize": "weightgen.cli.tokens:detokenize",
}
"""Name → where it is; a command's module is imported when the command, or the list of all, is asked for."""

for _position, (_name, _path) in enumerate(COMMANDS.items()):
    app.command(_path, name=_name, sort_key=_position)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and gives its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        if debug:
            raise
        return _fail("interrupted", 130)
    except CycloptsError as error:
        if debug:
            raise
        return _fail(f"{error}\ntry: {' '.join(['weightgen', *(error.command_chain or ())])} --help", 2)
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough.
        _drop_output()
        return 1
    except Exception as error:
        if debug:
            raise
        if isinstance(error, OSError):
            _drop_output()
        return _fail(_line(error), 1)


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in app.help_flags:
        # The list of commands shows the first line of each, which stands in their modules.
        app.resolved_commands()
    app(arguments, exit_on_error=False, print_error=False, result_action="return_none")
    sys.stdout.flush()
    return 0


def _line(error: Exception) -> str:
    """An error as one line."""
    if isinstance(error, WeightgenError):
        return str(error)
    if isinstance(error, OSError):
        named = OutputError("a file cannot be read or written", where=error.filename, got=error.strerror or str(error))
        return str(named)
    text = " ".join(str(error).split())
    return f"unexpected {type(error).__name__}: {text[:300]}; run it again with --debug to see where"


def _fail(text: str, code: int) -> int:
    print(f"error: {text}", file=sys.stderr)
    return code


def _drop_output() -> None:
    """Sends what is still to be written nowhere if it cannot be written; else Python complains again as it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
