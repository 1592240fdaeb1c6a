"""The Generator protocol: a Request goes in, Checkpoints come out."""

from pathlib import Path
from typing import Protocol, runtime_checkable

from weightgen.checkpoint import Checkpoint
from weightgen.instructions import Request
from weightgen.registry import Registry


@runtime_checkable
class Generator(Protocol):
    """Anything that makes Checkpoints from a Request and can be saved."""

    def sample(self, request: Request, num: int, seed: int) -> list[Checkpoint]:
        """`num` networks for `request.task` and `request.architecture`; the same seed gives the same networks."""
        ...

    def save_pretrained(self, folder: Path | str, card: str = "") -> None: ...

    @classmethod
    def from_pretrained(cls, name_or_folder: Path | str) -> "Generator": ...


generators: Registry[type] = Registry("generator")
"""Method name → class."""
