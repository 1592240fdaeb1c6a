"""Families: the project's own kinds of networks, each with named options and what builds a module from them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weightgen.registry import Registry

if TYPE_CHECKING:
    from torch import nn

Value = bool | int | float | str | tuple[int, ...]
"""What an option of a recipe may be."""


@dataclass(frozen=True)
class Family:
    """A kind of network with named options.

    Args:
        build: makes the module from all options.
        defaults: every option with its default; a recipe may name no other.
        positive: options whose integers must be ≥ 1.
    """

    build: Callable[..., "nn.Module"]
    defaults: Mapping[str, Value]
    positive: frozenset[str] = frozenset()


families: Registry[Family] = Registry("architecture family")


def _multilayer_perceptron(**options: Any) -> "nn.Module":
    from weightgen.networks import multilayer_perceptron

    return multilayer_perceptron(**options)


def _convolutional_network(**options: Any) -> "nn.Module":
    from weightgen.networks import convolutional_network

    return convolutional_network(**options)


def _residual_network(**options: Any) -> "nn.Module":
    from weightgen.networks import residual_network

    return residual_network(**options)


families.add(
    "weightgen/mlp",
    Family(
        _multilayer_perceptron,
        {"activation": "relu", "classes": 10, "grid": 0, "hidden": (32,), "input": (1, 8, 8)},
        frozenset({"classes", "hidden", "input"}),
    ),
)
families.add(
    "weightgen/cnn",
    Family(
        _convolutional_network,
        {
            "activation": "relu",
            "channels": (8, 16),
            "classes": 10,
            "grid": 2,
            "input": (1, 8, 8),
            "kernel": 3,
            "stride": 2,
            "strides": (),
        },
        frozenset({"channels", "classes", "grid", "input", "kernel", "stride", "strides"}),
    ),
)
families.add(
    "weightgen/resnet",
    Family(
        _residual_network,
        {"blocks": (3, 3, 3), "classes": 10, "inner": (), "input": (3, 32, 32), "width": 16, "widths": ()},
        frozenset({"blocks", "classes", "inner", "input", "width", "widths"}),
    ),
)


def _triplane(**options: Any) -> "nn.Module":
    from weightgen.fields.triplane import TriPlane, TriPlaneConfig

    return TriPlane(TriPlaneConfig(**options))


families.add(
    "weightgen/triplane",
    Family(
        _triplane,
        {
            "aggregation": "sum",
            "align_corners": True,
            "channels": 16,
            "decoder": "siren",
            "frequencies": 10,
            "hidden": (64, 64, 64),
            "order": "xy-xz-yz",
            "outputs": 1,
            "resolution": 32,
        },
        frozenset({"channels", "hidden", "outputs", "resolution"}),
    ),
)
