"""Reductions, and functions of each value and all values along some axes: norms, softmax, statistics."""

from weightgen.structure.labels import Labels
from weightgen.structure.rules.call import Call, rule


def _axes(call: Call) -> list[int]:
    dims = call.get("dim", "dims")
    if dims is None or dims == []:
        return list(range(len(call.tensors[0].shape)))
    return [dims] if isinstance(dims, int) else list(dims)


@rule(
    "all", "amax", "amin", "any", "linalg_norm", "linalg_vector_norm", "logsumexp", "mean", "nansum", "norm", "prod",
    "std", "sum", "var",
)  # fmt: skip
def _reduced(call: Call) -> Labels:
    return call.propagation.reduce(call.tensors[0], _axes(call), bool(call.get("keepdim", default=False)))


@rule("std_mean", "var_mean", "aminmax")
def _statistics(call: Call) -> list[Labels]:
    reduced = call.propagation.reduce(call.tensors[0], _axes(call), bool(call["keepdim"]))
    return [reduced] * len(call.shapes)


@rule("argmax", "argmin", "max", "min", "median", "mode", "kthvalue")
def _chosen(call: Call) -> list[Labels]:
    """The largest value and the number of its index, which would change with the order."""
    if len(call.tensors) == 2:
        return [call.propagation.join(call.tensors, call.shape)]
    labels = call.tensors[0]
    if len(call.shapes) == 1 and call.operator in ("max", "min"):
        return [call.propagation.reduce(labels, range(len(labels.shape)))]
    axes = _axes(call)
    if call.operator.startswith("arg") or any(call.used[1:]):
        labels = call.propagation.lock(labels, axes, f"numbered by {call.operator}")
    reduced = call.propagation.reduce(labels, axes, bool(call.get("keepdim", default=False)))
    return [reduced] * len(call.shapes)


@rule("softmax", "_softmax", "log_softmax", "_log_softmax", "softmin")
def _softmax(call: Call) -> Labels:
    return call.propagation.normalise(call.tensors[0], [call["dim"]])


@rule("cumsum", "cumprod", "logcumsumexp", "cummax", "cummin", "sort", "argsort")
def _ordered(call: Call) -> list[Labels]:
    """Functions of a value and of those before it."""
    labels = call.propagation.renewed(call.tensors[0], [call["dim"]], call.shape, f"order under {call.operator}")
    return [labels] * len(call.shapes)


@rule("tril", "triu")
def _triangle(call: Call) -> Labels:
    return call.propagation.renewed(call.tensors[0], [-2, -1], call.shape, "order under a triangular mask")


@rule(
    "batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit", "native_batch_norm",
    "instance_norm",
)  # fmt: skip
def _batch_norm(call: Call) -> list[Labels]:
    """Statistics and parameters for each index of axis 1."""
    features = call.tensors[0]
    if call.get("training", default=False) or call.operator == "instance_norm":
        others = [axis for axis in range(len(features.shape)) if axis != 1]
        features = call.propagation.normalise(features, others if call.operator != "instance_norm" else others[1:])
    result = _affine(call, features, 1)
    return [result, *(Labels.all_fixed(shape, "statistics of a batch") for shape in call.shapes[1:])]


@rule("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm")
def _layer_norm(call: Call) -> list[Labels]:
    """Over the last axes, each with its own parameters."""
    features, *parameters = call.tensors
    count = len(call["normalized_shape"])
    features = call.propagation.normalise(features, range(-count, 0))
    result = call.propagation.join([features, *parameters], call.shape)
    statistics = call.propagation.reduce(features, range(-count, 0), keep=True)
    return [result, *[statistics] * (len(call.shapes) - 1)]


@rule("group_norm", "native_group_norm")
def _group_norm(call: Call) -> list[Labels]:
    """Over blocks of neighbouring channels."""
    features = call["input"]
    batch, channels, *rest = features.shape
    groups = call.get("num_groups", "group")
    blocks = call.propagation.reshape(features, (batch, groups, channels // groups, *rest))
    blocks = call.propagation.normalise(blocks, range(2, len(blocks.shape)))
    result = _affine(call, call.propagation.reshape(blocks, features.shape), 1)
    return [result, *(Labels.all_fixed(shape, "statistics of a group") for shape in call.shapes[1:])]


@rule("_weight_norm")
def _weight_norm(call: Call) -> Labels:
    """`g v / ‖v‖`, the norm over all axes but one."""
    direction, scale = call["v"], call["g"]
    axis = direction.axis(call["dim"])
    direction = call.propagation.normalise(direction, [at for at in range(len(direction.shape)) if at != axis])
    return call.propagation.join([direction, scale], call.shape)


def _affine(call: Call, features: Labels, axis: int) -> Labels:
    """Features with every other tensor of the call, all of one axis, on `axis`."""
    shape = [size if place == axis else 1 for place, size in enumerate(features.shape)]
    vectors = [call.propagation.reshape(part, shape) for part in call.tensors[1:]]
    return call.propagation.join([features, *vectors], features.shape)
