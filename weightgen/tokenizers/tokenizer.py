"""WeightTokenizer: networks to codes and back, in whatever form.

Two forms keep this interface. The *behavioural* one (`behavioural.py`) knows a few architectures and tasks: half a bit
a weight says what differs between networks, and a trained decoder carries what makes them work; generators write its
codes. The *general* one (`general.py`) takes any network to about 4 bits a weight, with one codebook for all.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor

from weightgen.artefact import read_kind
from weightgen.checkpoint import Checkpoint
from weightgen.errors import CorruptFileError
from weightgen.registry import Registry
from weightgen.shelf import shelf
from weightgen.tokenizers.behavioural import BehaviouralTokenizer
from weightgen.tokenizers.general import GeneralTokenizer
from weightgen.tokenizers.tokens import WeightTokens

DEFAULTS = ("starter", "general")
"""Names on the shelf: the first of them that knows a network tokenizes it."""


@runtime_checkable
class WeightTokenizer(Protocol):
    """What every form of tokenizer does; `WeightTokenizer.from_pretrained` gives the form that was saved."""

    KIND: ClassVar[str]
    provenance: dict[str, Any]

    def knows(self, checkpoint: Checkpoint) -> bool:
        """Whether it takes this network."""
        ...

    def encode(self, checkpoint: Checkpoint) -> WeightTokens:
        """One network to codes."""
        ...

    def decode(self, tokens: WeightTokens) -> Mapping[str, Tensor]:
        """Codes to the tensors of one network."""
        ...

    def measure(self, checkpoint: Checkpoint, tokens: WeightTokens) -> dict[str, Any]:
        """What tokens cost and lose: `{"tokens", "levels", "bits_per_weight", "snr_db"}`, and maybe more."""
        ...

    def save_pretrained(self, folder: Path | str, card: str = "") -> None:
        """Writes `config.json`, `model.safetensors` and the card."""
        ...

    @staticmethod
    def from_pretrained(name_or_folder: Path | str) -> "WeightTokenizer":
        """A saved tokenizer of any form, by folder or by its name on the shelf.

        Raises:
            MissingDataError: if there is none.
            CorruptFileError: if it is damaged, or of no form that is known.
        """
        folder = shelf("tokenizers", name_or_folder)
        kind = read_kind(folder)
        for name in tokenizers:
            if kind == tokenizers[name].KIND:
                return tokenizers[name].from_pretrained(folder)
        raise CorruptFileError("an artefact of another kind", where=folder, got=kind, expected="a tokenizer")


tokenizers: Registry[Any] = Registry("form of tokenizer")
tokenizers.add("behavioural", BehaviouralTokenizer)
tokenizers.add("general", GeneralTokenizer)


def tokenizer_for(checkpoint: Checkpoint) -> WeightTokenizer:
    """The first of the default tokenizers that knows a network; the general one knows all."""
    *others, last = (WeightTokenizer.from_pretrained(name) for name in DEFAULTS)
    return next((tokenizer for tokenizer in others if tokenizer.knows(checkpoint)), last)
