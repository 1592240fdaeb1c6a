"""What a generator remembers of the networks it learned from, so that the novelty of a new one is quickly known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor

from weightgen.architecture import Architecture
from weightgen.errors import MissingDataError
from weightgen.evaluation.novelty import Reference
from weightgen.tasks import get_task
from weightgen.tokenizers import BehaviouralTokenizer, Cell
from weightgen.training.population import population_predictions, stack
from weightgen.zoo import Zoo

IMAGES = 2_000
"""Test images on which errors are compared."""


@dataclass(frozen=True)
class Remembered:
    """The training networks of one task and architecture, without their weights.

    Args:
        ids: their ids in the zoo.
        codes: uint8 or int16 `[networks, tokens, levels]`.
        errors: bool `[networks, images]`, on the first test images.
        spacing: median distance to the nearest other.
        largest_overlap: largest overlap of errors with the nearest other.
        accuracy: mean over the networks, on those images.
    """

    ids: Sequence[str]
    codes: Tensor
    errors: Tensor
    spacing: float
    largest_overlap: float
    accuracy: float

    @classmethod
    def of(cls, cell: Cell, tokenizer: BehaviouralTokenizer) -> "Remembered":
        images, labels = (part[:IMAGES] for part in get_task(cell.task).test())
        errors = population_predictions(cell.architecture, cell.tensors, images) != labels
        reference = Reference.of(cell.architecture, cell.tensors, errors)
        codes = tokenizer.encode_batch(cell.tensors, cell.architecture, cell.task)
        return cls(cell.ids, codes, errors, reference.spacing, reference.largest_overlap, reference.accuracy)

    def reference(self, zoo: Zoo, recipe: str) -> Reference:
        """With the weights, read from the zoo.

        Raises:
            MissingDataError: if the zoo no longer holds them.
        """
        rows = {row.id: row for row in zoo.query(f"architecture = '{recipe}'")}
        missing = [name for name in self.ids if name not in rows]
        if missing:
            raise MissingDataError(
                "the zoo no longer holds what the generator learned from", where=zoo.path, got=missing[0]
            )
        tensors = stack([rows[name].load().state_dict() for name in self.ids])
        return Reference(
            Architecture.parse(recipe), tensors, self.errors, self.spacing, self.largest_overlap, self.accuracy
        )

    def to_tensors(self) -> dict[str, Tensor]:
        packed = numpy.packbits(self.errors.numpy(), axis=1)
        return {"codes": self.codes.to(torch.int16), "errors": torch.from_numpy(packed)}

    def to_json(self) -> dict[str, Any]:
        return {
            "ids": list(self.ids), "images": self.errors.shape[1], "spacing": self.spacing,
            "largest_overlap": self.largest_overlap, "accuracy": self.accuracy,
        }  # fmt: skip

    @classmethod
    def read(cls, entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "Remembered":
        errors = numpy.unpackbits(tensors["errors"].numpy(), axis=1, count=entry["images"])
        return cls(
            entry["ids"], tensors["codes"].long(), torch.from_numpy(errors).bool(), entry["spacing"],
            entry["largest_overlap"], entry["accuracy"],
        )  # fmt: skip
