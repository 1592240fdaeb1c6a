"""Operators that only say where values lie: views, permutations, slices, stacks, padding."""

import functools
from collections.abc import Sequence

import numpy

from weightgen.structure.labels import Labels
from weightgen.structure.rules.call import Call, rule


@rule(
    "_reshape_alias", "_unsafe_view", "flatten", "ravel", "reshape", "reshape_as", "squeeze", "unflatten", "unsqueeze",
    "view", "view_as",
)  # fmt: skip
def _reshape(call: Call) -> Labels:
    return call.propagation.reshape(call["self"], call.shape)


@rule("permute")
def _permute(call: Call) -> Labels:
    return call.propagation.permute(call["self"], call["dims"])


@rule("swapaxes", "swapdims", "transpose")
def _transpose(call: Call) -> Labels:
    labels = call["self"]
    one, other = (labels.axis(call.get(*names)) for names in (("dim0", "axis0"), ("dim1", "axis1")))
    order = list(range(len(labels.shape)))
    order[one], order[other] = other, one
    return call.propagation.permute(labels, order)


@rule("adjoint", "mT", "numpy_T", "t")
def _transposed(call: Call) -> Labels:
    order = list(range(len(call["self"].shape)))
    swapped = order[::-1] if call.operator in ("numpy_T", "t") else [*order[:-2], *order[:-3:-1]]
    return call.propagation.permute(call["self"], swapped)


@rule("movedim", "moveaxis")
def _move(call: Call) -> Labels:
    labels = call["self"]
    sources, targets = (
        [labels.axis(axis) for axis in ([value] if isinstance(value, int) else value)]
        for value in (call["source"], call["destination"])
    )
    rest = iter(axis for axis in range(len(labels.shape)) if axis not in sources)
    order = [sources[targets.index(place)] if place in targets else next(rest) for place in range(len(labels.shape))]
    return call.propagation.permute(labels, order)


@rule("broadcast_to", "expand", "expand_as")
def _expand(call: Call) -> Labels:
    return call.propagation.expand(call["self"], call.shape)


@rule("broadcast_tensors")
def _broadcast(call: Call) -> list[Labels]:
    return [call.propagation.expand(part, shape) for part, shape in zip(call["tensors"], call.shapes, strict=True)]


@rule("repeat", "tile")
def _repeat(call: Call) -> Labels:
    """Each axis repeated as a whole, one copy behind the other."""
    labels, repeats = call["self"], list(call.get("repeats", "dims"))
    sizes = [1] * (len(call.shape) - len(labels.shape)) + list(labels.shape)
    repeats = [1] * (len(sizes) - len(repeats)) + repeats
    single = call.propagation.reshape(labels, [part for size in sizes for part in (1, size)])
    wide = call.propagation.expand(
        single, [part for size, count in zip(sizes, repeats, strict=True) for part in (count, size)]
    )
    return call.propagation.reshape(wide, call.shape)


@rule("repeat_interleave")
def _repeat_each(call: Call) -> Labels | list[Labels]:
    """Each index of an axis repeated by itself."""
    if not isinstance(call.get("repeats"), int) or call.get("dim") is None:
        call.propagation.freeze(call.tensors[0], "repeated by counts that are data")
        return call.fixed("repeated by counts that are data")
    return repeat_each(call.propagation, call["self"], call["dim"], call["repeats"])


def repeat_each(propagation, labels: Labels, axis: int, count: int) -> Labels:
    """Each index of an axis `count` times in a row."""
    axis = labels.axis(axis)
    shape = labels.shape
    single = propagation.reshape(labels, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
    wide = propagation.expand(single, (*shape[: axis + 1], count, *shape[axis + 1 :]))
    return propagation.reshape(wide, (*shape[:axis], shape[axis] * count, *shape[axis + 1 :]))


@rule("slice")
def _slice(call: Call) -> Labels:
    labels = call["self"]
    axis = labels.axis(call["dim"])
    index = numpy.arange(labels.shape[axis])[call["start"] : call["end"] : call["step"]]
    return call.propagation.take(labels, axis, index)


@rule("narrow")
def _narrow(call: Call) -> Labels | list[Labels]:
    if not isinstance(call["start"], int):
        call.propagation.freeze(call["self"], "narrowed by data")
        return call.fixed("narrowed by data")
    axis = call["self"].axis(call["dim"])
    start = call["start"] % call["self"].shape[axis] if call["start"] < 0 else call["start"]
    return call.propagation.take(call["self"], axis, numpy.arange(start, start + call["length"]))


@rule("select")
def _select(call: Call) -> Labels:
    return _one(call, call["index"])


@rule("unbind")
def _unbind(call: Call) -> list[Labels]:
    return [_one(call, index) for index in range(len(call.shapes))]


def _one(call: Call, index: int) -> Labels:
    axis = call["self"].axis(call["dim"])
    index = index % call["self"].shape[axis]
    taken = call.propagation.take(call["self"], axis, numpy.array([index]))
    return call.propagation.squeeze(taken, [axis])


@rule("chunk", "split", "split_with_sizes", "tensor_split")
def _split(call: Call) -> list[Labels]:
    axis = call["self"].axis(call["dim"])
    ends = numpy.cumsum([shape[axis] for shape in call.shapes])
    return [
        call.propagation.take(call["self"], axis, numpy.arange(end - shape[axis], end))
        for shape, end in zip(call.shapes, ends, strict=True)
    ]


@rule("cat", "concat", "concatenate")
def _concatenate(call: Call) -> Labels:
    # An empty one-dimensional tensor may stand in any stack.
    parts = [part for part in call["tensors"] if len(part.shape) == len(call.shape)]
    return call.propagation.concatenate(parts, call.get("dim", "axis"))


@rule("stack")
def _stack(call: Call) -> Labels:
    axis = call["dim"] % len(call.shape)
    return call.propagation.concatenate([call.propagation.unsqueeze(part, axis) for part in call["tensors"]], axis)


@rule("copy")
def _copy(call: Call) -> Labels:
    """One tensor overwritten by another."""
    return call.propagation.expand(call["src"], call.shape)


@rule("slice_scatter", "select_scatter")
def _scatter(call: Call) -> Labels:
    """A tensor with some indices of an axis overwritten by another: what is before, the other, what is behind."""
    patterns, labels, source = call.propagation, call["self"], call["src"]
    axis = labels.axis(call["dim"])
    numbers = numpy.arange(labels.shape[axis])
    if call.operator == "select_scatter":
        written = numbers[call["index"]][None]
        source = patterns.unsqueeze(source, axis)
    else:
        written = numbers[call["start"] : call["end"] : call["step"]]
    kept = numpy.setdiff1d(numbers, written)
    if len(kept) == 0:
        return source
    whole = patterns.concatenate([patterns.take(labels, axis, kept), source], axis)
    return patterns.take(whole, axis, numpy.argsort(numpy.concatenate([kept, written])))


@rule("constant_pad_nd", "pad")
def _pad(call: Call) -> Labels | list[Labels]:
    labels, widths = call["self"], list(call["pad"])
    pairs = {len(labels.shape) - 1 - place: widths[2 * place : 2 * place + 2] for place in range(len(widths) // 2)}
    if call.get("mode", default="constant") != "constant":
        return call.propagation.renewed(labels, pairs, call.shape, "padded by its own values")
    return functools.reduce(lambda padded, item: call.propagation.pad(padded, item[0], *item[1]), pairs.items(), labels)


@rule("roll")
def _roll(call: Call) -> Labels | list[Labels]:
    shifts, axes = _listed(call["shifts"]), _listed(call["dims"])
    labels = call["self"]
    if not axes:
        call.propagation.freeze(labels, "rolled over all axes")
        return call.fixed("rolled over all axes")
    for shift, axis in zip(shifts, axes, strict=True):
        labels = call.propagation.take(labels, axis, numpy.roll(numpy.arange(labels.shape[axis]), shift))
    return labels


@rule("flip")
def _flip(call: Call) -> Labels:
    labels = call["self"]
    for axis in call["dims"]:
        labels = call.propagation.take(labels, axis, numpy.arange(labels.shape[axis])[::-1])
    return labels


@rule("pixel_shuffle")
def _pixel_shuffle(call: Call) -> Labels:
    """Blocks of channels become places: `[…, C · r², H, W]` to `[…, C, H · r, W · r]`."""
    *batch, channels, height, width = call["self"].shape
    factor = call["upscale_factor"]
    split = call.propagation.reshape(call["self"], (*batch, channels // factor**2, factor, factor, height, width))
    first = len(batch)
    order = (*range(first), first, first + 3, first + 1, first + 4, first + 2)
    return call.propagation.reshape(call.propagation.permute(split, order), call.shape)


@rule("pixel_unshuffle")
def _pixel_unshuffle(call: Call) -> Labels:
    """Places become channels: `[…, C, H · r, W · r]` to `[…, C · r², H, W]`."""
    *batch, channels, height, width = call["self"].shape
    factor = call["downscale_factor"]
    split = call.propagation.reshape(
        call["self"], (*batch, channels, height // factor, factor, width // factor, factor)
    )
    first = len(batch)
    order = (*range(first), first, first + 2, first + 4, first + 1, first + 3)
    return call.propagation.reshape(call.propagation.permute(split, order), call.shape)


@rule("channel_shuffle")
def _channel_shuffle(call: Call) -> Labels:
    batch, channels, *rest = call["self"].shape
    split = call.propagation.reshape(call["self"], (batch, call["groups"], channels // call["groups"], *rest))
    order = (0, 2, 1, *range(3, len(split.shape)))
    return call.propagation.reshape(call.propagation.permute(split, order), call.shape)


def _listed(value: int | Sequence[int]) -> list[int]:
    return [value] if isinstance(value, int) else list(value)
