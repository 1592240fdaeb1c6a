"""A lineage as a file: Graphviz's language, or a picture that the program `dot` draws of it."""

import shutil
import subprocess
from pathlib import Path

from weightgen.errors import MissingDataError, OutputError
from weightgen.storage import atomic, write_text
from weightgen.zoo.lineage import Lineage

PICTURES = ("png", "svg", "pdf")


def draw(lineage: Lineage, path: Path) -> Path:
    """Writes the graph to a file; the ending `.png`, `.svg` or `.pdf` asks for a picture.

    Raises:
        MissingDataError: if a picture is asked for and Graphviz is not installed.
        OutputError: if the file cannot be written.
    """
    kind = path.suffix.removeprefix(".").lower()
    if kind not in PICTURES:
        write_text(path, lineage.graphviz())
        return path
    program = shutil.which("dot")
    if program is None:
        raise MissingDataError(
            "a picture needs Graphviz's program dot", where=path, remedy="install Graphviz, or write a .dot file"
        )
    with atomic(path) as temporary:
        drawn = subprocess.run(
            [program, f"-T{kind}", "-o", str(temporary)], input=lineage.graphviz().encode(), capture_output=True
        )
        if drawn.returncode:
            raise OutputError("Graphviz could not draw the graph", where=path, got=drawn.stderr.decode()[:200])
    return path
