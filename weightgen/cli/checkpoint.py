"""`weightgen evaluate`: what one network does."""

from typing import Literal

from weightgen.cli.output import print_json


def evaluate(
    checkpoint: str, *, task: str, split: Literal["train", "validation", "test"] = "test", json: bool = False
) -> None:
    """Measure a network on a task.

    Example: weightgen evaluate digits.safetensors --task digits

    Parameters
    ----------
    checkpoint
        A file or folder of any format that is read.
    task
        What to measure it on: digits, mnist, mnist/3v8, digits/even-odd, ….
    split
        The part of the data.
    json
        Print JSON.
    """
    from weightgen.formats.opening import open_network
    from weightgen.tasks import evaluate as measure
    from weightgen.tasks import get_task

    result = measure(open_network(checkpoint).build(), get_task(task), split)
    if json:
        return print_json(result)
    for name, value in result["metrics"].items():
        print(f"{name} {value:.4f} on {result['examples']:,} examples of {result['task']} ({result['split']})")
