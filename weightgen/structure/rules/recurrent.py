"""Recurrent layers: the gates of a hidden unit move with it."""

from collections.abc import Sequence

import numpy

from weightgen.structure.labels import Labels, Space
from weightgen.structure.rules.call import Call, rule

STEP = "a step in time"


@rule("lstm", "gru", "rnn_tanh", "rnn_relu")
def _recurrent(call: Call) -> list[Labels]:
    """Layers and directions one after the other.

    Each has weights `[gates · hidden, inputs]` and `[gates · hidden, hidden]`, then their biases if there are any, then
    with `proj_size` the weight `[projected, hidden]`.
    """
    patterns, features = call.propagation, call["input"]
    states = call["hx"] if isinstance(call["hx"], (list, tuple)) else [call["hx"]]
    if "params" not in call.arguments:
        for labels in call.tensors:
            patterns.freeze(labels, "a packed sequence")
        return call.fixed("a packed sequence")
    directions = 2 if call["bidirectional"] else 1
    count = len(call["params"]) // (directions * call["num_layers"])
    features = patterns.lock(features, range(len(features.shape) - 1), STEP)
    finals: list[list[Labels]] = [[] for _ in states]
    for layer in range(call["num_layers"]):
        outputs = []
        for direction in range(directions):
            number = layer * directions + direction
            weights = call["params"][number * count : (number + 1) * count]
            hidden, output = _layer(call, features, weights)
            kinds = [output, hidden] if call.operator == "lstm" else [output]
            for kind, state, final in zip(kinds, states, finals, strict=True):
                row = patterns.take(state, 0, numpy.array([number]))
                final.append(patterns.join([kind, row], row.shape))
            outputs.append(output)
        whole = patterns.concatenate(outputs, 0)
        shape = (*features.shape[:-1], whole.shape[0])
        places = {0: len(shape) - 1}
        fixed = {axis: STEP for axis in range(len(shape) - 1) if shape[axis] != 1}
        moved = whole.moved(places, shape)
        features = Labels(shape, moved.spaces, {**moved.fixed, **fixed})
    return [features, *(_stacked(final, shape) for final, shape in zip(finals, call.shapes[1:], strict=True))]


def _stacked(rows: Sequence[Labels], shape: tuple[int, ...]) -> Labels:
    """The last states of all layers and directions `[layers, batch, units]`, each with units of its own."""
    spaces = [row.spaces for row in rows]
    fixed = {axis: STEP for axis in range(len(shape) - 1) if shape[axis] != 1}
    if not all(spaces):
        return Labels.all_fixed(shape, STEP)
    ids = numpy.stack([space[0].ids for space in spaces])
    axes = (0, len(shape) - 1) if len(rows) > 1 else (len(shape) - 1,)
    joint = Space(axes, ids if len(rows) > 1 else ids[0])
    return Labels(shape, (joint,), {axis: reason for axis, reason in fixed.items() if axis not in axes})


def _layer(call: Call, features: Labels, weights: Sequence[Labels]) -> tuple[Labels, Labels]:
    """Labels of the hidden (cell) units and of the outputs of one layer in one direction, each `[units]`."""
    patterns = call.propagation
    inward, recurrent = weights[:2]
    projection = weights[-1] if len(weights) in (3, 5) else None
    biases = [part for part in weights[2:] if part is not projection]
    gates = {"lstm": 4, "gru": 3}.get(call.operator, 1)
    units = inward.shape[0] // gates
    columns = patterns.reduce(features, range(len(features.shape) - 1))
    patterns.contract([columns, inward], [[1], [0, 1]], inward.shape, [1])
    hidden = Labels((units,))
    for part in (inward, recurrent, *biases):
        rows = patterns.reduce(part, [1]) if len(part.shape) == 2 else part
        split = patterns.reshape(rows, (gates, units))
        for gate in range(gates):
            one = patterns.squeeze(patterns.take(split, 0, numpy.array([gate])), [0])
            hidden = patterns.join([hidden, one], (units,))
    output = hidden
    if projection is not None:
        output = patterns.contract([projection, hidden], [[0, 1], [1]], projection.shape, [1])
    # What comes out is what comes in at the next step.
    patterns.contract([recurrent, output], [[0, 1], [1]], recurrent.shape, [1])
    return hidden, output
