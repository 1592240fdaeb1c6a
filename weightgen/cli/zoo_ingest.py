"""`weightgen zoo ingest`: networks of any format become entries of a zoo."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from weightgen.cli.output import print_json, progress, table
from weightgen.errors import QueryError

Many = Annotated[tuple[str, ...], Parameter(negative="")]


def ingest(
    *paths: str,
    zoo: Path | None = None,
    task: str | None = None,
    metric: Many = (),
    tag: Many = (),
    parent: Many = (),
    metadata_pattern: str | None = None,
    workers: int | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Read networks of any known format into a zoo; what is no network is passed over, and the reason is shown.

    Read are safetensors (single and sharded), files of torch.save, Hugging Face, timm and PEFT folders, agents of
    Stable-Baselines3, .nnet, .npz and .npy, estool JSON and ONNX. The same tensors twice are one entry. Repeat an
    ingest that was killed, and it goes on where it was.

    Example: weightgen zoo ingest acasxu --zoo my-zoo --metadata-pattern 'ACASXU_run2a_{advisory:d}_{tau:d}_*'

    Parameters
    ----------
    paths
        Files and folders; a name such as timm/resnet18.a1_in1k is fetched by timm.
    zoo
        The zoo's folder; it is made if it is not there.
    task
        What all of them are for, in place of what their sources say.
    metric
        A figure of all of them: accuracy=0.91 (on test data) or validation.accuracy=0.9; may be given several times.
    tag
        A tag for all of them; may be given several times.
    parent
        The id or name of what all of them were made from; may be given several times.
    metadata_pattern
        Reads hyperparameters from names: {field} for text, {field:d} for an integer, {field:f} for a number, * and ?.
    workers
        Processes that read; one for a few sources and one a core for many, if not given.
    dry_run
        Show what would be read and write nothing.
    json
        Print the report as JSON.
    """
    from weightgen.zoo import ingest as module

    facts = module.Facts(task, tuple(map(_metric, metric)), tag, parent, metadata_pattern)
    if dry_run:
        report = module.preview(_given(paths), facts)
    else:
        with progress("ingesting") as update:
            report = module.ingest(_zoo(zoo), _given(paths), facts, workers or os.cpu_count() or 1, update)
    print_json(report.to_json()) if json else _print(report, dry_run)


def _given(paths: Sequence[str]) -> Sequence[str]:
    if not paths:
        raise QueryError("nothing to ingest", expected="files or folders")
    return paths


def _zoo(folder: Path | None):
    from weightgen.zoo import Zoo
    from weightgen.zoo.catalogue import FILE_NAME

    if folder is None:
        raise QueryError("which zoo?", expected="--zoo FOLDER", remedy="it is made if it is not there")
    return Zoo(folder) if (folder / FILE_NAME).is_file() else Zoo.create(folder)


def _metric(text: str) -> tuple[str, str, float]:
    """`accuracy=0.91` or `validation.accuracy=0.9` as (name, split, value)."""
    path, equals, value = text.partition("=")
    split, dot, name = path.rpartition(".")
    try:
        if not equals or not name or not -1e300 < float(value) < 1e300:
            raise ValueError
        return name, split if dot else "test", float(value)
    except ValueError:
        raise QueryError("not a metric", got=text, expected="accuracy=0.91 or validation.accuracy=0.9") from None


def _print(report, dry_run: bool) -> None:
    if dry_run:
        columns = ["name", "format", "architecture", "parameters", "task", "metrics", "hyperparameters"]
        table(f"{len(report.networks)} networks", columns, [_cells(one, columns) for one in report.networks])
    else:
        print(f"{len(report.added):,} networks added, {report.known:,} known, {report.done:,} sources read before")
    if report.unmatched:
        print(f"{report.unmatched:,} networks whose names the pattern does not match")
    for reason, number in report.skipped.most_common():
        print(f"passed over: {number:,} × {reason}")
    for path, reason in report.failed.items():
        print(f"failed: {path}: {reason}")


def _cells(entry: dict, columns: Sequence[str]) -> list[str]:
    cells = [entry[column] for column in columns]
    return [
        ", ".join(f"{key} {value}" for key, value in one.items()) if isinstance(one, dict) else str(one or "")
        for one in cells
    ]
