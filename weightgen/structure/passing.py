"""Passing: which operators let scales and signs of units through, and on what terms.

An operator that is not named here lets nothing pass, which is never wrong. To name one is a line in the sets of those
that keep values or are free of scale or odd, or a function with `@power_rule_of("name in aten")`.
"""

from collections.abc import Callable

from weightgen.structure.labels import Labels
from weightgen.structure.powers import PowerRule, Recorded, State

KEEPING = frozenset({
    "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "_reshape_alias", "_to_copy", "_unsafe_view",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "alias", "avg_pool1d", "avg_pool2d",
    "avg_pool3d", "broadcast_to", "clone", "contiguous", "detach", "dropout", "expand", "expand_as", "flatten", "flip",
    "mT", "mean", "movedim", "neg", "numpy_T", "permute", "pixel_shuffle", "reshape", "roll", "squeeze", "sum",
    "swapaxes", "t", "to", "transpose", "type_as", "unflatten", "unsqueeze", "upsample_bilinear2d",
    "upsample_nearest2d", "view",
})  # fmt: skip
"""Linear functions that only move values, or add up values that scale alike."""

PARTS = frozenset({"chunk", "narrow", "select", "slice", "split", "split_with_sizes", "unbind"})
"""As these, of which a result holds a part."""

SCALE_FREE = frozenset({
    "abs", "adaptive_max_pool1d", "adaptive_max_pool2d", "leaky_relu", "max_pool1d", "max_pool2d", "max_pool3d", "relu",
})  # fmt: skip
"""f(s·x) = s·f(x) for s > 0."""

ODD = frozenset({"asinh", "atan", "erf", "sin", "sinh", "tanh"})
"""f(−x) = −f(x)."""

_RULES: dict[str, PowerRule] = {}


def power_rule_of(*operators: str) -> Callable[[PowerRule], PowerRule]:
    """Registers what some operators of aten do to powers."""

    def register(function: PowerRule) -> PowerRule:
        _RULES.update(dict.fromkeys(operators, function))
        return function

    return register


def power_rule(call: Recorded, signs: bool) -> PowerRule:
    """What a call does to powers; signs are followed, else scales."""
    if call.operator in KEEPING or call.operator in (ODD if signs else SCALE_FREE):
        return _kept
    if call.operator in PARTS:
        return _part
    return _RULES.get(call.operator, State.forbid)


def unharmed_in_place(operator: str) -> bool:
    """Whether a tensor that the operator overwrites scales after it as before, so that older names of it still hold."""
    return operator in KEEPING | SCALE_FREE | ODD | {"add", "sub"}


def _kept(state: State, call: Recorded) -> None:
    state.keep(call.tensors[0], call.results)
    for labels in call.tensors[1:]:
        state.hold(labels)


def _part(state: State, call: Recorded) -> None:
    state.keep(call.tensors[0], call.results, whole=False)


@power_rule_of("constant_pad_nd", "pad")
def _pad(state: State, call: Recorded) -> None:
    """Zeros scale with anything."""
    zeros = not call.get("value") and call.get("mode") in (None, "constant")
    _kept(state, call) if zeros else state.forbid(call)


@power_rule_of("add", "sub")
def _add(state: State, call: Recorded) -> None:
    if len(call.tensors) != 2:
        return state.forbid(call)
    rank = len(call.results[0].shape)
    parts = [(labels, _from_right(labels, rank)) for labels in call.tensors]
    state.join(parts, (call.results[0], _from_right(call.results[0], rank)))


@power_rule_of("cat", "concat", "concatenate")
def _concatenate(state: State, call: Recorded) -> None:
    result = call.results[0]
    if any(len(labels.shape) != len(result.shape) for labels in call.tensors):
        return state.forbid(call)
    rank = len(result.shape)
    parts = [(labels, _from_right(labels, rank)) for labels in call.tensors]
    state.join(parts, (result, _from_right(result, rank)), result.axis(call.get("dim", "axis")))


@power_rule_of("mul")
def _multiply(state: State, call: Recorded) -> None:
    """Powers add up; by a number they stay."""
    if len(call.tensors) == 1:
        return _kept(state, call)
    rank = len(call.results[0].shape)
    parts = [(labels, _from_right(labels, rank)) for labels in call.tensors]
    state.product(parts, (), (call.results[0], _from_right(call.results[0], rank)))


@power_rule_of("div")
def _divide(state: State, call: Recorded) -> None:
    if call.get("rounding_mode") is not None:
        return state.forbid(call)
    for labels in call.tensors[1:]:
        state.hold(labels)
    _multiply(state, call)


@power_rule_of("linear")
def _linear(state: State, call: Recorded) -> None:
    features, weight = call.get("input"), call.get("weight")
    if len(weight.shape) != 2:
        return state.forbid(call)
    result, rank = call.results[0], len(features.shape)
    inputs = {**_numbered(rank - 1), rank - 1: rank}
    outputs = _numbered(rank)
    state.product([(features, inputs), (weight, {0: rank - 1, 1: rank})], {rank}, (result, outputs))
    _offset(state, result, outputs, call.get("bias"), {0: rank - 1})


@power_rule_of("matmul", "mm", "bmm")
def _matmul(state: State, call: Recorded) -> None:
    one, other = call.tensors
    if min(len(one.shape), len(other.shape)) < 2:
        return state.forbid(call)
    result = call.results[0]
    rank = len(result.shape)
    first = _from_right(one, rank)
    second = _from_right(other, rank)
    first[len(one.shape) - 1] = rank
    second[len(other.shape) - 2] = rank
    state.product([(one, first), (other, second)], {rank}, (result, _numbered(rank)))


@power_rule_of("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "convolution")
def _convolution(state: State, call: Recorded) -> None:
    """Of grouped ones only those that have a group for every channel."""
    features, weight, groups = call.get("input"), call.get("weight"), call.get("groups")
    spatial = len(weight.shape) - 2
    depthwise = groups > 1 and weight.shape[:2] == (groups, 1)
    if len(features.shape) != spatial + 2 or not (groups == 1 or depthwise):
        return state.forbid(call)
    transposed = call.operator.startswith("conv_transpose") or bool(call.get("transposed"))
    result = call.results[0]
    outputs = _numbered(spatial + 2)
    # Places of the image and of the kernel belong to no group: anywhere apart from one another will do.
    inputs = {0: 0, 1: 1 if depthwise else 100, **{axis: 200 + axis for axis in range(2, spatial + 2)}}
    rows, columns = (100, 1) if transposed else (1, 100)
    places = {0: 1 if depthwise else rows, 1: 101 if depthwise else columns}
    places |= {axis: 300 + axis for axis in range(2, spatial + 2)}
    state.product([(features, inputs), (weight, places)], {100, 101}, (result, outputs))
    _offset(state, result, outputs, call.get("bias"), {0: 1})


@power_rule_of("embedding")
def _embedding(state: State, call: Recorded) -> None:
    weight, result = call.get("weight"), call.results[0]
    rank = len(result.shape)
    state.product([(weight, {0: rank, 1: rank - 1})], {rank}, (result, _numbered(rank)))


@power_rule_of("scaled_dot_product_attention")
def _attention(state: State, call: Recorded) -> None:
    """Scores may not scale; what is attended to is added up."""
    query, key, value, mask = (call.get(name) for name in ("query", "key", "value", "attn_mask"))
    result = call.results[0]
    rank = len(result.shape)
    if not (len(query.shape) == len(key.shape) == len(value.shape) == rank) or query.shape[:-2] != value.shape[:-2]:
        return state.forbid(call)
    batch = _numbered(rank - 2)
    length, source, inner, outer = range(rank, rank + 4)
    state.product(
        [(query, {**batch, rank - 2: length, rank - 1: inner}), (key, {**batch, rank - 2: source, rank - 1: inner})],
        {inner}, None,
    )  # fmt: skip
    if mask is not None:
        state.hold(mask)
    read = {**batch, rank - 2: source, rank - 1: outer}
    state.product([(value, read)], {source}, (result, {**batch, rank - 2: length, rank - 1: outer}))


@power_rule_of("batch_norm")
def _batch_norm(state: State, call: Recorded) -> None:
    """What comes in keeps its scale, since epsilon does not scale; its sign may change with that of the mean."""
    if call.get("training") or call.get("running_mean") is None:
        return state.forbid(call)
    features, result = call.get("input"), call.results[0]
    channels, whole = {0: 1}, _numbered(len(result.shape))
    mean = call.get("running_mean")
    state.hold(call.get("running_var"))
    if not state.equations.signs:
        state.hold(features)
        state.hold(mean)
    else:
        _offset(state, features, whole, mean, channels)
    weight = call.get("weight")
    parts = [(features, whole), *([(weight, channels)] if weight is not None else [])]
    state.product(parts, (), (result, whole))
    _offset(state, result, whole, call.get("bias"), channels)


@power_rule_of("layer_norm", "rms_norm", "group_norm")
def _norm(state: State, call: Recorded) -> None:
    """What comes in does not scale; what goes out as its weights and biases do."""
    state.hold(call.get("input"))
    result, weight, bias = call.results[0], call.get("weight"), call.get("bias")
    rank = len(result.shape)
    if weight is None:
        for labels in call.results:
            state.write(labels, {})
        return
    places = {0: 1} if call.operator == "group_norm" else _from_right(weight, rank)
    state.product([(weight, places)], (), (result, _numbered(rank)))
    _offset(state, result, _numbered(rank), bias, places)


def _offset(
    state: State, result: Labels, places: dict[int, int], bias: Labels | None, bias_places: dict[int, int]
) -> None:
    """What is added to a result scales as the result does."""
    if bias is not None:
        state.join([(result, places), (bias, bias_places)], (result, places))


def _numbered(rank: int) -> dict[int, int]:
    return {axis: axis for axis in range(rank)}


def _from_right(labels: Labels, rank: int) -> dict[int, int]:
    """Where axes lie when a tensor is broadcast to so many."""
    return {axis: axis + rank - len(labels.shape) for axis in range(len(labels.shape))}
