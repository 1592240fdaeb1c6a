"""Row: what the catalogue knows of one network."""

import dataclasses
import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weightgen.checkpoint import UNSTATED, Card, Checkpoint
from weightgen.errors import CorruptFileError

if TYPE_CHECKING:
    from weightgen.zoo.zoo import Zoo

COLUMNS = "number, id, name, architecture, parameters, format, card, blob"
"""The columns of `models` that a Row is made of, in order."""


@dataclass(frozen=True)
class Row:
    """What the catalogue knows of one network; `load()` gives the network itself."""

    zoo: "Zoo" = dataclasses.field(repr=False)
    number: int = dataclasses.field(repr=False)
    id: str
    name: str
    architecture: str
    parameters: int
    format: str
    _card: str = dataclasses.field(repr=False)
    _blob: str = dataclasses.field(repr=False)

    @functools.cached_property
    def card(self) -> Card:
        try:
            return Card.from_json(json.loads(self._card))
        except ValueError as error:
            raise CorruptFileError("the card cannot be read", where=f"{self.zoo.path}: {self.id}") from error

    @property
    def task(self) -> str | None:
        return self.card.task

    @property
    def origin(self) -> str:
        return self.card.origin

    @property
    def run(self) -> str:
        return self.card.run

    @property
    def split(self) -> str | None:
        return self.card.split

    @property
    def tags(self) -> tuple[str, ...]:
        return self.card.tags

    @property
    def hyperparameters(self) -> dict[str, Any]:
        return dict(self.card.hyperparameters)

    @property
    def metrics(self) -> dict[str, float]:
        """Named as in a query: `accuracy` on the test split or on unstated data, `validation.accuracy` on another."""
        found: dict[str, float] = {}
        # What was measured on test data comes before what was measured nobody knows where.
        for metric in sorted(self.card.metrics, key=lambda metric: metric.split == UNSTATED):
            plain = metric.split in ("test", UNSTATED)
            found.setdefault(metric.name if plain else f"{metric.split}.{metric.name}", metric.value)
        return found

    def load(self) -> Checkpoint:
        """The network; its tensors are read, and checked against their digests, when they are first asked for."""
        return self.zoo._checkpoint(self)

    def to_json(self) -> dict[str, Any]:
        """The row as JSON values."""
        return {
            "id": self.id,
            "name": self.name,
            "architecture": self.architecture,
            "task": self.task,
            "parameters": self.parameters,
            "metrics": self.metrics,
            "hyperparameters": self.hyperparameters,
            "tags": list(self.tags),
            "origin": self.origin,
            "run": self.run,
            "split": self.split,
            "format": self.format,
        }
