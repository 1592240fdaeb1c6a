"""Which axes of a layer's weights read values that other layers write."""

from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd


def reading_axis(layer: Any) -> int | None:
    """The axis of a layer's `weight` along which its inputs lie; None for a layer that contracts nothing, as a norm."""
    if isinstance(layer, _ConvTransposeNd):
        return 0
    if isinstance(layer, (nn.Linear, _ConvNd)):
        return 1
    # The linear layer of GPT-2, whose weight is transposed; transformers need not be there.
    if type(layer).__name__ == "Conv1D" and hasattr(layer, "nf"):
        return 0
    return None


def reads(module: nn.Module, tensor: str, axis: int) -> bool:
    """Whether values are summed over an axis of a tensor of a network, so that each of its indices is an input."""
    path, _, last = tensor.rpartition(".")
    return last == "weight" and reading_axis(module.get_submodule(path)) == axis


def writes(module: nn.Module, tensor: str, axis: int) -> bool:
    """Whether an axis of a tensor is that of a contracting layer's outputs, its bias included."""
    path, _, last = tensor.rpartition(".")
    reading = reading_axis(module.get_submodule(path))
    if reading is None:
        return False
    return last == "bias" or (last == "weight" and axis == (1 - reading))
