"""Sums of products: linear layers, matrix products, attention, einsum."""

import string
from collections.abc import Sequence

from weightgen.structure.labels import Labels
from weightgen.structure.propagation import Propagation
from weightgen.structure.rules.call import Call, rule
from weightgen.structure.rules.shaping import repeat_each


@rule("linear")
def _linear(call: Call) -> Labels:
    """`y[…, o] = Σ x[…, i] W[o, i] + b[o]`."""
    features, weight, bias = call["input"], call["weight"], call["bias"]
    *batch, inputs = features.shape
    axes = range(len(batch))
    out, last = len(batch), len(batch) + 1
    operands, places = [features, weight], [[*axes, last], [out, last]]
    if len(weight.shape) == 1:
        places[1] = [last]
    if bias is not None:
        operands.append(bias)
        places.append([out] if bias.shape else [])
    outputs = weight.shape[0] if len(weight.shape) == 2 else 1
    result = call.propagation.contract(operands, places, (*batch, outputs, inputs), [last])
    return call.propagation.reshape(result, call.shape)


@rule("bmm", "matmul", "mm", "mv", "dot", "inner", "linalg_vecdot", "vdot")
def _matmul(call: Call) -> Labels:
    one, other = call.tensors
    if call.operator in ("inner", "linalg_vecdot") and len(other.shape) > 1:
        other = call.propagation.permute(other, [*range(len(other.shape) - 2), -1, -2])
    return call.propagation.reshape(matmul(call.propagation, one, other), call.shape)


@rule("addmm", "addmv", "baddbmm")
def _added(call: Call) -> Labels:
    bias, one, other = call.tensors
    return call.propagation.join([bias, matmul(call.propagation, one, other)], call.shape)


@rule("outer", "ger")
def _outer(call: Call) -> Labels:
    one, other = call.tensors
    return call.propagation.contract([one, other], [[0], [1]], call.shape, [])


@rule("einsum")
def _einsum(call: Call) -> Labels | list[Labels]:
    operands = list(call["tensors"])
    inputs, _, output = call["equation"].replace(" ", "").partition("->")
    terms = inputs.split(",")
    spare = iter(letter for letter in string.ascii_letters if letter not in call["equation"])
    hidden = max(
        (len(part.shape) - len(term.replace(".", "")) for part, term in zip(operands, terms, strict=True)), default=0
    )
    batch = "".join(next(spare) for _ in range(hidden))
    named = []
    for part, term in zip(operands, terms, strict=True):
        count = len(part.shape) - len(term.replace(".", ""))
        named.append(term.replace("...", batch[hidden - count :]))
    if "->" in call["equation"]:
        output = output.replace("...", batch)
    else:
        letters = "".join(named)
        output = batch + "".join(sorted(letter for letter in {*letters} - {*batch} if letters.count(letter) == 1))
    if any(len(set(term)) < len(term) for term in named):
        for part in operands:
            call.propagation.freeze(part, "a diagonal in einsum")
        return call.fixed("a diagonal in einsum")
    summed = sorted({*"".join(named)} - {*output})
    order = [*output, *summed]
    sizes = dict.fromkeys(order, 1)
    for part, term in zip(operands, named, strict=True):
        for letter, size in zip(term, part.shape, strict=True):
            sizes[letter] = max(sizes[letter], size)
    places = [[order.index(letter) for letter in term] for term in named]
    return call.propagation.contract(operands, places, list(sizes.values()), range(len(output), len(order)))


@rule("scaled_dot_product_attention")
def _attention(call: Call) -> Labels:
    """Softmax of q kᵀ plus a mask, times v; the rows of what is attended to are the second last axis."""
    query, key, value, mask = (call[name] for name in ("query", "key", "value", "attn_mask"))
    if call["enable_gqa"]:
        key, value = (
            repeat_each(call.propagation, part, -3, query.shape[-3] // part.shape[-3]) for part in (key, value)
        )
    swapped = [*range(len(key.shape) - 2), -1, -2]
    scores = matmul(call.propagation, query, call.propagation.permute(key, swapped))
    if call["is_causal"]:
        scores = call.propagation.renewed(scores, [-2, -1], scores.shape, "order under a causal mask")
    if mask is not None:
        scores = call.propagation.join([scores, mask], scores.shape)
    scores = call.propagation.normalise(scores, [-1])
    return matmul(call.propagation, scores, value)


@rule("embedding")
def _embedding(call: Call) -> Labels:
    """Rows of a table, chosen by number."""
    weight, indices = call["weight"], call["indices"]
    rows = call.propagation.reduce(call.propagation.lock(weight, [0], "a table whose rows have numbers"), [0])
    return call.propagation.join([call.propagation.unsqueeze(indices, -1), rows], call.shape)


def matmul(propagation: Propagation, one: Labels, other: Labels) -> Labels:
    """`[…, n, k] @ […, k, m]`, axes before the last two broadcast; a single axis is a row, or a column."""
    vectors = [len(one.shape) == 1, len(other.shape) == 1]
    if vectors[0]:
        one = propagation.unsqueeze(one, 0)
    if vectors[1]:
        other = propagation.unsqueeze(other, 1)
    batch = max(len(one.shape), len(other.shape)) - 2
    shape = [
        max(
            part.shape[len(part.shape) - 2 - batch + axis]
            for part in (one, other)
            if len(part.shape) - 2 - batch + axis >= 0
        )
        for axis in range(batch)
    ]
    rows, columns, inner = batch, batch + 1, batch + 2
    places: list[Sequence[int]] = [
        [*range(batch - len(one.shape) + 2, batch), rows, inner],
        [*range(batch - len(other.shape) + 2, batch), inner, columns],
    ]
    full = (*shape, one.shape[-2], other.shape[-1], one.shape[-1])
    result = propagation.contract([one, other], places, full, [inner])
    single = [axis for axis, vector in ((rows, vectors[0]), (columns, vectors[1])) if vector]
    return propagation.squeeze(result, single)
