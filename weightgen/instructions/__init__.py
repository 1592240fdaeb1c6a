"""From a free-worded prompt to a Request and to an embedding; torch is imported only for the encoders."""

from typing import TYPE_CHECKING, Any

from weightgen.instructions.candidates import Candidate, choose
from weightgen.instructions.request import Constraints, Request
from weightgen.instructions.resolve import resolve
from weightgen.instructions.templates import Sentence, sentence, sentences
from weightgen.instructions.vocabulary import VOCABULARY

if TYPE_CHECKING:
    from weightgen.instructions.encoder import (
        InstructionEncoder,
        InstructionEncoderConfig,
        PretrainedInstructionEncoder,
    )

__all__ = [
    "VOCABULARY",
    "Candidate",
    "Constraints",
    "InstructionEncoder",
    "InstructionEncoderConfig",
    "PretrainedInstructionEncoder",
    "Request",
    "Sentence",
    "choose",
    "resolve",
    "sentence",
    "sentences",
]

_ENCODERS = {"InstructionEncoder", "InstructionEncoderConfig", "PretrainedInstructionEncoder"}


def __getattr__(name: str) -> Any:
    if name in _ENCODERS:
        from weightgen.instructions import encoder

        return getattr(encoder, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
