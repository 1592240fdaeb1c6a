"""The project's own network families, at any width and depth.

The plain stacks are `nn.Sequential` with named layers: `hidden1`, `hidden2`, … or `conv1`, `conv2`, …, then `head`.
The residual network has the names of the published CIFAR checkpoints, so that these fit it as they are.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

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


def residual_network(input: Sequence[int], blocks: Sequence[int], width: int, classes: int) -> "ResidualNetwork":
    """A residual network for small images: ResNet-20 is `blocks=3,3,3`, ResNet-32 `blocks=5,5,5`.

    Args:
        input: shape of one example, `(channels, height, width)`; any height and width will do.
        blocks: residual blocks of each stage; each stage but the first halves the image and doubles the width.
        width: channels of the first stage.
        classes: number of outputs.
    """
    return ResidualNetwork(input[0], tuple(blocks), width, classes)


class ResidualNetwork(nn.Module):
    """The CIFAR network of https://arxiv.org/abs/1512.03385, section 4.2, with shortcuts of option A (no weights)."""

    def __init__(self, channels: int, blocks: tuple[int, ...], width: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.stages = len(blocks)
        features = width
        for stage, number in enumerate(blocks):
            wide = width * 2**stage
            layers = []
            for block in range(number):
                layers.append(_Block(features, wide, 2 if stage and not block else 1))
                features = wide
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.linear = nn.Linear(features, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images `[n, channels, height, width]` to logits `[n, classes]`."""
        features = functional.relu(self.bn1(self.conv1(images)))
        for stage in range(self.stages):
            features = self.get_submodule(f"layer{stage + 1}")(features)
        return self.linear(features.mean((2, 3)))


class _Block(nn.Module):
    """Two convolutions and a shortcut that subsamples the image and adds channels of zeros, half on each side."""

    def __init__(self, features: int, wide: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(features, wide, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        new = wide - features
        self.padding = (0, 0, 0, 0, new // 2, new - new // 2)

    def forward(self, features: Tensor) -> Tensor:
        change = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(features)))))
        kept = functional.pad(features[:, :, :: self.stride, :: self.stride], self.padding)
        return functional.relu(change + kept)
