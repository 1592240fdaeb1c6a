"""Policies of estool (https://github.com/hardmaru/estool): JSON of one list of weights and, in most, their mean return.

The file says nothing of the network; its name begins with the game, which says how the weights are cut.
"""

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy

from weightgen.architecture import Architecture
from weightgen.checkpoint import Card, Metric
from weightgen.formats.format import Network, register
from weightgen.formats.tensors import made_with, network

if TYPE_CHECKING:
    from torch import Tensor

MAXIMUM = 512 * 2**20

GAMES = {
    "biped": (24, 40, 40, 4), "bipedhard": (24, 40, 40, 4), "bullet_half_cheetah": (26, 64, 32, 6),
    "bullet_kuka_grasping": (9, 64, 32, 3), "bullet_minitaur": (28, 64, 32, 8),
    "bullet_minitaur_ball": (28, 64, 32, 8), "bullet_minitaur_duck": (28, 64, 32, 8), "cartpole_swingup": (5, 10, 1),
    "slimevolley": (12, 20, 20, 3),
}  # fmt: skip
"""The sizes of the games whose policies are plain stacks with tanh, at the outputs too."""


def _recognises(path: Path, head: bytes) -> bool:
    return head.replace(b" ", b"").replace(b"\n", b"")[:2] == b"[[" and len(_content(path)) in (1, 2)


def _content(path: Path) -> list:
    if path.stat().st_size > MAXIMUM:
        raise ValueError("it is too long")
    found = json.loads(path.read_bytes())
    return found if isinstance(found, list) else []


@register("estool", "estool policy", _recognises)
def read(path: Path) -> list[Network]:
    """The one policy of a file."""
    weights, *rest = _content(path)
    if not isinstance(weights, list) or not all(isinstance(one, (int, float)) for one in weights) or not weights:
        raise ValueError("a policy is one list of numbers")
    values = numpy.array(weights, dtype=numpy.float64)
    game = path.name.partition(".")[0]
    sizes = GAMES.get(game, ())
    tensors, architecture, more = {"parameters": values}, None, {}
    if sizes and len(values) == sum((wide + 1) * narrow for wide, narrow in itertools.pairwise(sizes)):
        tensors = _cut(values, sizes)
        architecture = Architecture.of(
            "weightgen/mlp", activation="tanh", input=(sizes[0], 1, 1), hidden=sizes[1:-1], classes=sizes[-1]
        )
        # The recipe ends with the last linear layer.
        more = {"output_activation": "tanh"}
    figures = [float(one) for one in rest if isinstance(one, (int, float)) and abs(one) < 1e300]
    card = Card(
        task=game, origin="ingested", run=path.name.removesuffix(".json"),
        metrics=tuple(Metric("mean_return", one, "test", "") for one in figures),
        made_with=made_with("estool", path, **more),
    )  # fmt: skip
    kinds = {name: ("float32", one.shape) for name, one in tensors.items()}

    def tensor(name: str) -> "Tensor":
        import torch

        return torch.tensor(tensors[name], dtype=torch.float32)

    return [Network("", network(kinds, tensor, card, path, architecture))]


def _cut(values: numpy.ndarray, sizes: tuple[int, ...]) -> dict[str, numpy.ndarray]:
    """The layers of a list of weights, which stand there as `[inputs, outputs]`, then the biases."""
    tensors, place = {}, 0
    for depth, (wide, narrow) in enumerate(itertools.pairwise(sizes), 1):
        name = "head" if depth == len(sizes) - 1 else f"hidden{depth}"
        tensors[f"{name}.weight"] = values[place : place + wide * narrow].reshape(wide, narrow).T
        place += wide * narrow
        tensors[f"{name}.bias"] = values[place : place + narrow]
        place += narrow
    return tensors
