"""`weightgen evaluate`: what one network does."""

from pathlib import Path
from typing import Literal

from weightgen.cli.output import print_json


def evaluate(
    checkpoint: Path, *, task: str, split: Literal["train", "validation", "test"] = "test", json: bool = False
) -> None:
    """Measure a network on a task.

    Example: weightgen evaluate digits.safetensors --task digits

    Parameters
    ----------
    checkpoint
        A checkpoint file.
    task
        What to measure it on: digits, mnist, mnist/3v8, digits/even-odd, ….
    split
        The part of the data.
    json
        Print JSON.
    """
    from weightgen.checkpoint import Checkpoint
    from weightgen.tasks import evaluate as measure
    from weightgen.tasks import get_task

    result = measure(Checkpoint.load(checkpoint).build(), get_task(task), split)
    if json:
        return print_json(result)
    for name, value in result["metrics"].items():
        print(f"{name} {value:.4f} on {result['examples']:,} examples of {result['task']} ({result['split']})")
