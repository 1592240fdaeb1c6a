"""WeightTokens: one network as codes, and the file that holds them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weightgen.architecture import Architecture
from weightgen.artefact import part
from weightgen.checkpoint import Card
from weightgen.errors import CorruptFileError
from weightgen.storage import read_tensors, write_tensors

TOKENS = "weight-tokens"
Kinds = Mapping[str, tuple[str, tuple[int, ...]]]
"""Name → (kind such as `float32`, shape), as of a Checkpoint."""


@dataclass(frozen=True)
class WeightTokens:
    """One network as codes.

    Args:
        codes: int64 `[tokens, levels]`; of a behavioural tokenizer the first token is a header that names the task.
        architecture: what the codes decode to.
        shapes: of the network's tensors in order; empty where the architecture alone says what is decoded.
        side: what the tokenizer needs besides codes, such as scales; empty for a behavioural one.
        tokenizer: identity of the tokenizer whose codebooks these codes need; empty for a behavioural one.
    """

    codes: Tensor
    architecture: Architecture
    shapes: Kinds = field(default_factory=dict)
    side: Mapping[str, Tensor] = field(default_factory=dict)
    tokenizer: str = ""

    def save(self, path: Path | str, card: Card | None = None) -> None:
        """Writes codes, architecture and the network's Card as one file; codes as short as they can be."""
        header: dict[str, Any] = {
            "kind": TOKENS, "architecture": str(self.architecture), "card": None if card is None else card.to_json()
        }  # fmt: skip
        if not self.tokenizer:
            return write_tensors(path, {"codes": self.codes}, header)
        header["tokenizer"] = self.tokenizer
        header["shapes"] = [[name, kind, list(shape)] for name, (kind, shape) in self.shapes.items()]
        side = {f"side/{name}": tensor for name, tensor in self.side.items()}
        write_tensors(path, {"codes": _short(self.codes), **side}, header)

    @classmethod
    def load(cls, path: Path | str) -> "tuple[WeightTokens, Card]":
        """The codes of a file of `save`, and the Card of the network they were made from.

        Raises:
            MissingDataError: if there is no such file.
            CorruptFileError: if it is damaged or holds something else.
        """
        header, tensors = read_tensors(path)
        codes = tensors.get("codes")
        if header.get("kind") != TOKENS or codes is None or codes.is_floating_point():
            raise CorruptFileError("not a file of tokens", where=path, got=f"kind {header.get('kind')!r}")
        card = Card() if header.get("card") is None else Card.from_json(header["card"])
        architecture = Architecture.parse(str(header.get("architecture")))
        shapes = _shapes(header.get("shapes", []), path)
        return cls(codes.long(), architecture, shapes, part(tensors, "side"), str(header.get("tokenizer", ""))), card


def _short(codes: Tensor) -> Tensor:
    most = int(codes.max()) if codes.numel() else 0
    kinds = (torch.uint8, torch.int16, torch.int32, torch.int64)
    return codes.to(next(kind for kind in kinds if most <= torch.iinfo(kind).max))


def _shapes(value: Any, path: Path | str) -> Kinds:
    try:
        shapes = {str(name): (str(kind), tuple(int(length) for length in shape)) for name, kind, shape in value}
    except (TypeError, ValueError) as error:
        raise CorruptFileError("shapes that cannot be read", where=path, got=str(error)) from error
    if any(length < 0 for _, shape in shapes.values() for length in shape):
        raise CorruptFileError("a tensor of negative length", where=path)
    if any(not isinstance(getattr(torch, kind, None), torch.dtype) for kind, _ in shapes.values()):
        raise CorruptFileError("a tensor of an unknown kind", where=path)
    if sum(math.prod(shape) for _, shape in shapes.values()) >= 2**40:
        raise CorruptFileError("tensors that no memory holds", where=path)
    return shapes
