"""`weightgen align`: a network with its hidden units where another has them."""

from pathlib import Path

from weightgen.cli.output import print_json
from weightgen.errors import OutputError


def align(
    checkpoint: str,
    reference: str,
    *,
    task: str | None = None,
    out: Path | None = None,
    force: bool = False,
    json: bool = False,
) -> None:
    """Put the hidden units of a network in the order of another's, its function unchanged.

    Example: weightgen align first.safetensors second.safetensors --out aligned.safetensors

    Parameters
    ----------
    checkpoint
        What to align: a file or folder of any format that is read.
    reference
        A network of the same architecture, likewise.
    task
        Match units by their answers to this task's train images rather than by their weights.
    out
        Where to write the aligned network; nothing is written without it.
    force
        Overwrite what is there.
    json
        Print JSON.
    """
    from weightgen.alignment import measured_alignment
    from weightgen.formats.opening import open_network

    if out is not None and out.exists() and not force:
        raise OutputError("--out exists already", where=out, remedy="choose another name, or overwrite it with --force")
    found = measured_alignment(open_network(checkpoint), open_network(reference), task)
    if out is not None:
        found.checkpoint.save(out, force=force)
    result = {
        "path": None if out is None else str(out), "architecture": str(found.checkpoint.architecture),
        "method": found.method, "groups": found.groups,
        "distance": {"before": found.before, "after": found.after},
    }  # fmt: skip
    if json:
        return print_json(result)
    print(
        f"distance {found.before:.4g} before, {found.after:.4g} after, {found.groups} groups matched by {found.method}"
    )
