"""Neural-network weights as data: zoos that can be asked questions, tokenizers of weights, generators of networks."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weightgen.alignment import align
    from weightgen.architecture import Architecture
    from weightgen.checkpoint import Card, Checkpoint
    from weightgen.generation import generate
    from weightgen.generators.hypernetwork import hypernetwork
    from weightgen.tasks import evaluate, get_task
    from weightgen.tokenizers import WeightTokenizer
    from weightgen.zoo import F, Zoo

__version__ = "0.1.0"

__all__ = [
    "Architecture",
    "Card",
    "Checkpoint",
    "F",
    "WeightTokenizer",
    "Zoo",
    "__version__",
    "align",
    "evaluate",
    "generate",
    "get_task",
    "hypernetwork",
]

_HOMES = {
    "Architecture": "weightgen.architecture",
    "Card": "weightgen.checkpoint",
    "Checkpoint": "weightgen.checkpoint",
    "F": "weightgen.zoo",
    "WeightTokenizer": "weightgen.tokenizers",
    "Zoo": "weightgen.zoo",
    "align": "weightgen.alignment",
    "evaluate": "weightgen.tasks",
    "generate": "weightgen.generation",
    "get_task": "weightgen.tasks",
    "hypernetwork": "weightgen.generators.hypernetwork",
}


def __getattr__(name: str) -> Any:
    # Names are fetched when they are first used, so that `import weightgen` and `--help` do not wait for torch.
    if name not in _HOMES:
        raise AttributeError(f"module 'weightgen' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
