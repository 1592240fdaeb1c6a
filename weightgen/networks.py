"""The project's own network families, plain stacks at any width and depth.

Both are `nn.Sequential` with named layers: `hidden1`, `hidden2`, … or `conv1`, `conv2`, …, then `head`.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
}


def multilayer_perceptron(
    input: Sequence[int], hidden: Sequence[int], classes: int, activation: str, grid: int
) -> nn.Sequential:
    """A stack of linear layers over a flattened image.

    Args:
        input: shape of one example, `(channels, height, width)`.
        hidden: width of each hidden layer; empty for a linear classifier.
        classes: number of outputs.
        activation: a key of `ACTIVATIONS`.
        grid: if not 0, the image is first averaged to `grid × grid` cells.
    """
    channels, height, width = input
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    features = channels * height * width
    if grid:
        layers["average"] = nn.AdaptiveAvgPool2d(grid)
        features = channels * grid * grid
    layers["flatten"] = nn.Flatten()
    for depth, wide in enumerate(hidden, 1):
        layers[f"hidden{depth}"] = nn.Linear(features, wide)
        layers[f"activation{depth}"] = ACTIVATIONS[activation]()
        features = wide
    layers["head"] = nn.Linear(features, classes)
    return nn.Sequential(layers)


def convolutional_network(
    input: Sequence[int],
    channels: Sequence[int],
    classes: int,
    activation: str,
    kernel: int,
    stride: int,
    grid: int,
) -> nn.Sequential:
    """A stack of strided convolutions, averaged to a small grid and read by one linear layer.

    Args:
        input: shape of one example, `(channels, height, width)`.
        channels: output channels of each convolution.
        classes: number of outputs.
        activation: a key of `ACTIVATIONS`.
        kernel: kernel height and width; padding keeps the image's size before the stride.
        stride: stride of every convolution.
        grid: the last feature map is averaged to `grid × grid` cells.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    features = input[0]
    for depth, wide in enumerate(channels, 1):
        layers[f"conv{depth}"] = nn.Conv2d(features, wide, kernel, stride, kernel // 2)
        layers[f"activation{depth}"] = ACTIVATIONS[activation]()
        features = wide
    layers["average"] = nn.AdaptiveAvgPool2d(grid)
    layers["flatten"] = nn.Flatten()
    layers["head"] = nn.Linear(features * grid * grid, classes)
    return nn.Sequential(layers)
