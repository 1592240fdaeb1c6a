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
    strides: Sequence[int] = (),
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
        strides: the stride of each convolution, in place of `stride`.

    Raises:
        ValueError: if there is not one of `strides` for each convolution.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    features = input[0]
    steps = tuple(strides) or (stride,) * len(channels)
    for depth, (wide, step) in enumerate(zip(channels, steps, strict=True), 1):
        layers[f"conv{depth}"] = nn.Conv2d(features, wide, kernel, step, kernel // 2)
        layers[f"activation{depth}"] = ACTIVATIONS[activation]()
        features = wide
    layers["average"] = nn.AdaptiveAvgPool2d(grid)
    layers["flatten"] = nn.Flatten()
    layers["head"] = nn.Linear(features * grid * grid, classes)
    return nn.Sequential(layers)


def residual_network(
    input: Sequence[int],
    blocks: Sequence[int],
    width: int,
    classes: int,
    widths: Sequence[int] = (),
    inner: Sequence[int] = (),
) -> "ResidualNetwork":
    """A residual network for small images: ResNet-20 is `blocks=3,3,3`, ResNet-32 `blocks=5,5,5`.

    Args:
        input: shape of one example, `(channels, height, width)`; any height and width will do.
        blocks: residual blocks of each stage; each stage but the first halves the image and doubles the width.
        width: channels of the first stage.
        classes: number of outputs.
        widths: channels of each stage, none narrower than the one before; in place of `width`.
        inner: channels between the two convolutions of each block, one for each; those of its stage if left out.

    Raises:
        ValueError: if there is not one of `widths` for each stage or of `inner` for each block, or a stage is narrower
            than the one before, since a shortcut without weights can only add channels.
    """
    widths = tuple(widths) or tuple(width * 2**stage for stage in range(len(blocks)))
    inner = tuple(inner) or tuple(wide for wide, number in zip(widths, blocks, strict=False) for _ in range(number))
    if len(widths) != len(blocks) or list(widths) != sorted(widths):
        raise ValueError(f"{len(blocks)} stages need as many widths, none less than the one before: got {widths}")
    if len(inner) != sum(blocks):
        raise ValueError(f"{sum(blocks)} blocks need as many inner widths: got {len(inner)}")
    return ResidualNetwork(input[0], tuple(blocks), widths, inner, classes)


class ResidualNetwork(nn.Module):
    """The CIFAR network of https://arxiv.org/abs/1512.03385, section 4.2, with shortcuts of option A (no weights)."""

    def __init__(
        self, channels: int, blocks: tuple[int, ...], widths: tuple[int, ...], inner: tuple[int, ...], classes: int
    ) -> None:
        super().__init__()
        features = widths[0]
        self.conv1 = nn.Conv2d(channels, features, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(features)
        self.stages = len(blocks)
        between = iter(inner)
        for stage, (number, wide) in enumerate(zip(blocks, widths, strict=True)):
            layers = []
            for block in range(number):
                layers.append(_Block(features, next(between), wide, 2 if stage and not block else 1))
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

    def __init__(self, features: int, inner: int, wide: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(features, inner, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, wide, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        new = wide - features
        self.padding = (0, 0, 0, 0, new // 2, new - new // 2)

    def forward(self, features: Tensor) -> Tensor:
        change = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(features)))))
        kept = functional.pad(features[:, :, :: self.stride, :: self.stride], self.padding)
        return functional.relu(change + kept)
