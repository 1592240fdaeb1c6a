"""`weightgen morph`: a network in another size."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from weightgen.artefact import is_artefact
from weightgen.cli.output import print_json, progress, table
from weightgen.errors import OutputError, WeightgenError

if TYPE_CHECKING:
    from weightgen.checkpoint import Checkpoint
    from weightgen.generators.neumeta import NeuMeta
    from weightgen.morphing import Morph

Many = Annotated[tuple[str, ...], Parameter(negative="")]
Budget = Annotated[str | None, Parameter(negative="")]


def morph(
    checkpoint: str,
    *,
    width: Many = (),
    depth: float | None = None,
    params: Budget = None,
    macs: Budget = None,
    like: str | None = None,
    method: str | None = None,
    task: str | None = None,
    architecture: str | None = None,
    part: str | None = None,
    ignore: Many = (),
    round_to: int = 1,
    repair: bool | None = None,
    recalibrate: Literal["auto", "data", "absolute", "synthetic", "none"] = "auto",
    finetune_steps: int = 0,
    distil: bool = False,
    learning_rate: float = 1e-3,
    seed: int = 0,
    report: Path | None = None,
    out: Path | None = None,
    force: bool = False,
    json: bool = False,
) -> None:
    """Write a network in another size: fewer or more units, fewer or more layers.

    Example: weightgen morph resnet20.safetensors --width 0.5 --task cifar10 --out half.safetensors

    Parameters
    ----------
    checkpoint
        A file or folder of any format that is read, a recipe such as timm/resnet50, or the folder of a generator that
        `weightgen train neumeta` wrote: that writes any width in no time, and without data.
    width
        A factor for all layers, or NAME=FACTOR for the outputs of one (or of all that fit layer3.*), again for another.
    depth
        A factor for the number of blocks.
    params
        At most so many parameters, such as 200k, by one factor for all widths.
    macs
        At most so many multiply-accumulates for one example.
    like
        The recipe of a network of the same kind whose size is wanted.
    method
        select, prune, slice, l1, l2, group-norm, taylor, random, net2net; prune or net2net, if not given.
    task
        What it is for; without one no data is looked at.
    architecture
        Its recipe, if the file does not tell: weightgen/resnet?blocks=5,5,5.
    part
        Which of the networks of a file that holds several.
    ignore
        A layer whose units stay as they are, a name or a pattern; may be given several times.
    round_to
        Sizes are multiples of this.
    repair
        Let the next layers make up for pruned units, by least squares.
    recalibrate
        Set batch norms by the change that training data shows, or noise, or anew; auto takes data if there is a task.
    finetune_steps
        Training steps of batch 128 that follow.
    distil
        Learn the answers of the old network in them, in place of the labels.
    learning_rate
        Of the training steps.
    seed
        The same seed gives the same bytes.
    report
        A folder for a comparison of methods over sizes: JSON, a table and a plot. Needs --task.
    out
        Where to write: a file, or a folder for a model of transformers.
    force
        Overwrite what is there.
    json
        Print JSON.
    """
    from weightgen import morphing

    target = _target(checkpoint, out, force, task, report)
    source = _read(checkpoint, part, architecture)
    with progress("morphing") as update:
        made = morphing.morph(
            source, width=_widths(width), depth=depth, params=_number(params), macs=_number(macs), like=like,
            method=method, task=task, ignore=ignore, round_to=round_to, repair=repair, recalibrate=recalibrate,
            finetune_steps=finetune_steps, distil=distil, learning_rate=learning_rate, seed=seed,
            state=target.with_name(f".{target.name}.state"), progress=update,
        )  # fmt: skip
    morphing.save(made.checkpoint, target, force)
    _tell(made)
    _report(source, task, report)
    print_json(made.to_json(target)) if json else _print(made, target)


def _target(checkpoint: str, out: Path | None, force: bool, task: str | None, report: Path | None) -> Path:
    """Where the network goes; a place that is taken, and a report of nothing, are said before the work."""
    if report is not None and task is None:
        raise WeightgenError("a report measures networks", remedy="name the task with --task")
    target = out or Path(f"{Path(checkpoint).stem}-morphed.safetensors")
    if target.exists() and not force:
        raise OutputError("the file exists", where=target, remedy="choose another name, or overwrite it with --force")
    return target


def _read(path: str, part: str | None, recipe: str | None) -> "Checkpoint | NeuMeta":
    """The network of a file, a folder or a recipe, with an architecture that was named; or a trained generator."""
    if is_artefact(path, "neumeta"):
        from weightgen.generators.neumeta import NeuMeta

        return NeuMeta.from_pretrained(path)
    from weightgen.architecture import Architecture
    from weightgen.checkpoint import Checkpoint
    from weightgen.formats.opening import open_network

    one = open_network(path, part)
    if one.card.origin == "random":
        print(f"note: {path} has no trained weights here; they are random", file=sys.stderr)
    return one if recipe is None else Checkpoint(Architecture.parse(recipe), one.state_dict(), one.card)


def _widths(given: Sequence[str]) -> float | dict[str, float] | None:
    """`0.5`, or `layer3.*=0.5` as a factor by name."""
    if not given:
        return None
    if len(given) == 1 and "=" not in given[0]:
        return _factor(given[0], given[0])
    named = [text.partition("=") for text in given]
    if not all(equals and name for name, equals, _ in named):
        raise WeightgenError("not widths", where="--width", got=" ".join(given), expected="one factor, or NAME=FACTOR")
    return {name: _factor(value, f"{name}={value}") for name, _, value in named}


def _factor(text: str, shown: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise WeightgenError("not a width", where="--width", got=shown, expected="a factor such as 0.5") from None


def _number(text: str | None) -> int | None:
    """`200k`, `1.5m` or `2g` as a number."""
    if text is None:
        return None
    units = {"k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}
    value, unit = (text[:-1], units[text[-1].lower()]) if text[-1:].lower() in units else (text, 1.0)
    try:
        return int(float(value.replace(",", "")) * unit)
    except ValueError:
        raise WeightgenError("not a number", got=text, expected="a number such as 200k or 1.5m") from None


def _tell(made: "Morph") -> None:
    """What could not be done, on stderr."""
    for note in made.notes:
        print(f"note: {note}", file=sys.stderr)
    for reason, axes in made.fixed.items():
        more = f" and {len(axes) - 3} more" if len(axes) > 3 else ""
        print(f"note: not resized ({reason}): {', '.join(axes[:3])}{more}", file=sys.stderr)


def _report(source: "Checkpoint | NeuMeta", task: str | None, folder: Path | None) -> None:
    if folder is None or task is None:
        return
    from weightgen.checkpoint import Checkpoint
    from weightgen.morphing.report import report
    from weightgen.tasks import get_task

    if not isinstance(source, Checkpoint):
        source = source.network()

    with progress("report") as update:
        report(source, get_task(task), folder, progress=update)
    print(f"{folder}: report.json, report.md and report.png", file=sys.stderr)


def _print(made: "Morph", path: Path) -> None:
    def row(name: str, numbers: Any, metrics: Any) -> list[str]:
        macs = "?" if numbers["macs"] is None else f"{numbers['macs']:,}"
        accuracy = f"{metrics['accuracy']:.4f}" if "accuracy" in metrics else "not measured"
        return [name, f"{numbers['parameters']:,}", macs, accuracy]

    after = {"parameters": made.checkpoint.parameters, "macs": made.macs}
    rows = [row("before", made.before, made.before["metrics"]), row("after", after, made.metrics)]
    print(f"{path}: {made.checkpoint.architecture}, by {made.method}")
    table("", ["", "parameters", "MACs", "accuracy"], rows)
