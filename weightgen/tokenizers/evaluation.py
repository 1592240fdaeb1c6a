"""What a tokenizer costs and loses: bits per weight, and the accuracy of what it decodes; never weight error alone."""

from typing import Any

from torch import nn

from weightgen.architecture import Architecture
from weightgen.checkpoint import Checkpoint
from weightgen.tasks import Task, evaluate
from weightgen.tasks.task import Split
from weightgen.tokenizers.tokenizer import WeightTokenizer
from weightgen.training.recalibration import recalibrate


def evaluate_tokenizer(
    tokenizer: WeightTokenizer, network: Checkpoint, task: Task, split: Split = "test", *, images: int = 2_000
) -> dict[str, Any]:
    """A network through codes and back, measured on its task before and after.

    Batch norms of the decoded network are moved by what the codes change of their statistics on training images.

    Args:
        images: training images for that.

    Returns:
        What `WeightTokenizer.measure` gives, and `accuracy`: `{"before", "decoded", "recalibrated"}` in 0…1, the last
        one None for a network without batch norms.

    Raises:
        ArchitectureError: if the network cannot be built, or does not fit the task.
        MissingDataError: if the task's data is not on this machine.
    """
    tokens = tokenizer.encode(network)
    original = network.build()
    decoded = built(network.architecture, tokenizer, tokens)
    accuracy = {
        "before": evaluate(original, task, split)["metrics"]["accuracy"],
        "decoded": evaluate(decoded, task, split)["metrics"]["accuracy"],
        "recalibrated": None,
    }
    if recalibrate(decoded, task.train()[0][:images], original=original):
        accuracy["recalibrated"] = evaluate(decoded, task, split)["metrics"]["accuracy"]
    return {**tokenizer.measure(network, tokens), "accuracy": accuracy}


def built(architecture: Architecture, tokenizer: WeightTokenizer, tokens: Any) -> nn.Module:
    """The network that codes decode to, as a ready module."""
    return Checkpoint(architecture, tokenizer.decode(tokens)).build()
