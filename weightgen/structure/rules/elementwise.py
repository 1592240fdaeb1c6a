"""Functions of each value by itself, where aten does not tag them as such, and constants."""

import numpy

from weightgen.structure.labels import Labels
from weightgen.structure.rules.call import Call, rule


@rule(
    "_to_copy", "alias", "alpha_dropout", "celu", "contiguous", "detach", "dropout", "elu", "feature_dropout",
    "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "lift_fresh_copy", "log_sigmoid", "relu6", "rrelu", "selu",
    "to", "type_as",
)  # fmt: skip
def _unchanged(call: Call) -> Labels:
    """The first tensor, value by value."""
    return call.tensors[0]


@rule("prelu", "_prelu_kernel")
def _prelu(call: Call) -> Labels:
    """One slope, or one for each index of axis 1."""
    slope = call["weight"]
    if len(slope.shape) == 1 and len(call.shape) > 1:
        slope = call.propagation.reshape(slope, (1, slope.shape[0], *[1] * (len(call.shape) - 2)))
    return call.propagation.join([call["self"], slope], call.shape)


@rule("where")
def _where(call: Call) -> Labels | list[Labels]:
    """Not all of its forms are tagged; with a condition alone it gives the numbers of true values."""
    if len(call.tensors) == 1 and "other" not in call.arguments:
        call.propagation.freeze(call.tensors[0], "numbered by where")
        return call.fixed("numbered by where")
    return call.propagation.join(call.tensors, call.shape)


@rule("glu")
def _gated(call: Call) -> Labels:
    """The first half of an axis times the sigmoid of the second."""
    halves = [
        call.propagation.take(call["self"], call["dim"], part)
        for part in _halves(call["self"].shape[call["self"].axis(call["dim"])])
    ]
    return call.propagation.join(halves, call.shape)


@rule(
    "full", "full_like", "new_full", "new_ones", "new_zeros", "ones", "ones_like", "scalar_tensor", "zeros",
    "zeros_like",
)  # fmt: skip
def _constant(call: Call) -> Labels:
    """The same value everywhere."""
    return Labels(call.shape)


@rule("arange", "empty", "empty_like", "eye", "linspace", "new_empty", "rand", "rand_like", "randn", "randn_like")
def _positions(call: Call) -> list[Labels]:
    """Values that differ from place to place, whatever the arguments are."""
    return call.fixed("values that are not learned")


def _halves(size: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    return numpy.arange(size // 2), numpy.arange(size // 2, size)
