"""Choices by number: what numbers point at cannot be reordered, unless the numbers were rewritten as well."""

from weightgen.structure.labels import Labels
from weightgen.structure.rules.call import Call, rule

NUMBERED = "indexed by number"


@rule("index", "_unsafe_index")
def _index(call: Call) -> Labels | list[Labels]:
    """`x[:, i, j]`: the axes of the numbers stand where the first indexed axis stood, in front if those are apart."""
    labels = call["self"]
    indices = dict(item for item in enumerate(call["indices"]) if item[1] is not None)
    axes = list(indices)
    count = max((len(index.shape) for index in indices.values()), default=0)
    if len(call.shape) != len(labels.shape) - len(axes) + count:
        # A mask of truth values takes several axes at once.
        call.propagation.freeze(labels, "chosen by a mask")
        return call.fixed("chosen by a mask")
    rows = call.propagation.reduce(call.propagation.lock(labels, axes, NUMBERED), axes)
    neighbours = axes == list(range(axes[0], axes[0] + len(axes)))
    first = axes[0] if neighbours else 0
    operands = [rows, *indices.values()]
    places = [[axis if axis < first else axis + count for axis in range(len(rows.shape))]]
    places += [[*range(first + count - len(index.shape), first + count)] for index in indices.values()]
    chosen = call.propagation.contract(operands, places, call.shape, [])
    return _fixed(chosen, range(first, first + count))


@rule("index_select")
def _index_select(call: Call) -> Labels:
    axis = call["self"].axis(call["dim"])
    return call.propagation.renewed(call["self"], [axis], call.shape, NUMBERED)


@rule("gather", "take_along_dim")
def _gather(call: Call) -> Labels | list[Labels]:
    labels, numbers = call["self"], call.get("index", "indices")
    axis = None if call["dim"] is None else labels.axis(call["dim"])
    alike = all(one == other or place == axis for place, (one, other) in enumerate(zip(labels.shape, numbers.shape)))  # noqa: B905
    if axis is None or not alike:
        call.propagation.freeze(labels, NUMBERED)
        return call.fixed(NUMBERED)
    rows = call.propagation.reduce(call.propagation.lock(labels, [axis], NUMBERED), [axis], keep=True)
    return _fixed(call.propagation.join([rows, numbers], call.shape), [axis])


def _fixed(labels: Labels, axes) -> Labels:
    """With axes fixed that hold no nodes: what was chosen differs from place to place."""
    more = {axis: NUMBERED for axis in axes if labels.shape[axis] != 1 and not labels.at(axis)}
    return Labels(labels.shape, labels.spaces, {**more, **labels.fixed})
