"""Convolutions, pooling and resampling: the axes of places are fixed, channels pass."""

from weightgen.structure.labels import Labels
from weightgen.structure.rules.call import Call, rule

PLACE = "a place in space or time"
KERNEL = "a place in a kernel"


@rule("conv1d", "conv2d", "conv3d")
def _convolution(call: Call) -> Labels:
    return _convolved(call, call["input"], call["weight"], call["bias"], call["groups"], False)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _transposed_convolution(call: Call) -> Labels:
    return _convolved(call, call["input"], call["weight"], call["bias"], call["groups"], True)


@rule("convolution", "_convolution")
def _either_convolution(call: Call) -> Labels:
    return _convolved(call, call["input"], call["weight"], call["bias"], call["groups"], call["transposed"])


def _convolved(
    call: Call, features: Labels, weight: Labels, bias: Labels | None, groups: int, transposed: bool
) -> Labels:
    """A sum of products over the input channels of each group, spatial axes apart.

    The weight is `[groups · outputs, inputs, …]`, transposed `[groups · inputs, outputs, …]`.
    """
    patterns = call.propagation
    spatial = len(weight.shape) - 2
    single = len(features.shape) == spatial + 1
    if single:
        features = patterns.unsqueeze(features, 0)
    batch, channels = features.shape[:2]
    places = range(2, 2 + spatial)
    features = patterns.reduce(patterns.lock(features, places, PLACE), places)
    features = patterns.reshape(features, (batch, groups, channels // groups))
    kernel = range(3, 3 + spatial)
    weight = call.grouped(weight, groups)
    weight = patterns.reduce(patterns.lock(weight, kernel, KERNEL), kernel)
    inputs, outputs = (weight.shape[1], weight.shape[2]) if transposed else (weight.shape[2], weight.shape[1])
    operands, axes = [features, weight], [[0, 1, 3], [1, 3, 2] if transposed else [1, 2, 3]]
    if bias is not None:
        operands.append(patterns.reshape(bias, (groups, outputs)))
        axes.append([1, 2])
    result = patterns.contract(operands, axes, (batch, groups, outputs, inputs), [3])
    result = patterns.reshape(result, (batch, groups * outputs))
    shape = call.shape if not single else (1, *call.shape)
    fixed = {axis: PLACE for axis in places if shape[axis] != 1}
    placed = Labels(shape, result.spaces, {**result.fixed, **fixed})
    return patterns.squeeze(placed, [0]) if single else placed


_AXES = {
    "pool1d": 1, "pool2d": 2, "pool3d": 3, "linear1d": 1, "nearest1d": 1, "bilinear2d": 2, "bicubic2d": 2,
    "nearest2d": 2, "nearest3d": 3, "trilinear3d": 3, "exact1d": 1, "exact2d": 2, "exact3d": 3, "pad1d": 1, "pad2d": 2,
    "pad3d": 3, "indices": 2, "bilinear2d_aa": 2, "bicubic2d_aa": 2,
}  # fmt: skip
"""By the last part of an operator's name, over how many of the last axes it goes."""


@rule(
    "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
    "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "avg_pool1d",
    "avg_pool2d", "avg_pool3d", "max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices",
    "max_pool3d_with_indices", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d",
    "replication_pad2d", "replication_pad3d", "upsample_bicubic2d", "_upsample_bicubic2d_aa", "upsample_bilinear2d",
    "_upsample_bilinear2d_aa", "upsample_linear1d", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d",
    "_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "upsample_trilinear3d",
)  # fmt: skip
def _resampled(call: Call) -> list[Labels]:
    name = call.operator.removesuffix("_with_indices").removesuffix("_aa")
    count = _AXES[name.rpartition("_")[2]]
    labels = call.tensors[0]
    axes = range(len(labels.shape) - count, len(labels.shape))
    return [call.propagation.renewed(labels, axes, shape, PLACE) for shape in call.shapes]


@rule("im2col")
def _unfolded(call: Call) -> Labels:
    """Windows of an image: `[batch, channels, height, width]` to `[batch, channels · window, places]`."""
    batch, channels = call["self"].shape[:2]
    window, places = call.shape[1] // channels, call.shape[2]
    wide = call.propagation.renewed(call["self"], [2, 3], (batch, channels, window, places), PLACE)
    return call.propagation.reshape(wide, call.shape)


@rule("col2im")
def _folded(call: Call) -> Labels:
    """Windows added up to an image, the inverse in shape of `im2col`."""
    batch, columns, places = call["self"].shape
    channels = call.shape[1]
    split = call.propagation.reshape(call["self"], (batch, channels, columns // channels, places))
    return call.propagation.renewed(split, [2, 3], call.shape, PLACE)


@rule("unfold")
def _windows(call: Call) -> Labels:
    """Windows along one axis, their places on a new last axis."""
    labels = call["self"]
    axis = labels.axis(call.get("dimension", "dim"))
    shape = (*labels.shape[:axis], call.shape[axis], *labels.shape[axis + 1 :])
    wide = call.propagation.unsqueeze(call.propagation.renewed(labels, [axis], shape, PLACE), -1)
    fixed = {len(call.shape) - 1: PLACE} if call.shape[-1] != 1 else {}
    return Labels(call.shape, wide.spaces, {**wide.fixed, **fixed})
