"""`.nnet` text files, the networks of ACAS Xu: https://github.com/sisl/NNet gives the format.

Fully connected layers with ReLU between them. The header gives least and greatest inputs, and what is subtracted from
and divided out of inputs and outputs; the network itself works on normalised values.
"""

import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy

from weightgen.architecture import Architecture
from weightgen.checkpoint import Card
from weightgen.formats.format import Network, register
from weightgen.formats.tensors import made_with, network

if TYPE_CHECKING:
    from torch import Tensor

MAXIMUM = 2**30
"""Bytes of a file; a number takes a dozen."""


def _recognises(path: Path, head: bytes) -> bool:
    lines = [line.strip() for line in head.decode("ascii").splitlines()[:-1]]
    numbers = [line for line in lines if line and not line.startswith("//")]
    return len(numbers) >= 3 and all(re.fullmatch(r"(\d{1,9},)+\d*", line) for line in numbers[:2])


@register("nnet", ".nnet text file", _recognises)
def read(path: Path) -> list[Network]:
    """The one network of a file."""
    if path.stat().st_size > MAXIMUM:
        raise ValueError("it is too long")
    lines = [line.strip() for line in path.read_text(encoding="ascii").splitlines()]
    lines = [line for line in lines if line and not line.startswith("//")]
    layers, inputs, outputs, _ = (int(text) for text in lines[0].split(",")[:4])
    sizes = [int(text) for text in lines[1].split(",") if text.strip()]
    if len(sizes) != layers + 1 or (sizes[0], sizes[-1]) != (inputs, outputs) or min(sizes) < 1:
        raise ValueError(f"{layers} layers of sizes {sizes[:20]}")
    expected = sum((wide + 1) * narrow for wide, narrow in itertools.pairwise(sizes))
    if expected > path.stat().st_size:
        raise ValueError(f"{expected:,} weights in {path.stat().st_size:,} bytes")
    header = [_numbers(line) for line in lines[3:7]]
    if [len(one) for one in header] != [inputs, inputs, inputs + 1, inputs + 1]:
        raise ValueError("a header of the wrong lengths")
    values = _numbers(",".join(lines[7:]))
    if len(values) != expected:
        raise ValueError(f"{len(values):,} weights where {expected:,} belong")
    tensors, place = {}, 0
    for depth, (wide, narrow) in enumerate(itertools.pairwise(sizes), 1):
        name = "head" if depth == layers else f"hidden{depth}"
        for part, shape in (("weight", (narrow, wide)), ("bias", (narrow,))):
            size = int(numpy.prod(shape))
            tensors[f"{name}.{part}"] = values[place : place + size].reshape(shape).astype(numpy.float32)
            place += size
    architecture = Architecture.of(
        "weightgen/mlp", input=(inputs, 1, 1), hidden=tuple(sizes[1:-1]), classes=outputs, activation="relu"
    )
    words = ("input_minimum", "input_maximum", "mean", "range")
    normalisation = {word: one.tolist() for word, one in zip(words, header, strict=True)}
    card = Card(origin="ingested", made_with=made_with("nnet", path, normalisation=normalisation))
    kinds = {name: ("float32", one.shape) for name, one in tensors.items()}

    def tensor(name: str) -> "Tensor":
        import torch

        return torch.from_numpy(tensors[name])

    return [Network("", network(kinds, tensor, card, path, architecture))]


def _numbers(text: str) -> numpy.ndarray:
    """Numbers between commas, float64 `[n]`."""
    return numpy.array([one for one in text.split(",") if one.strip()], dtype=numpy.float64)
