"""What each operator of the traced graph means for the axes; see `call` for how to add one."""

from weightgen.structure.rules import contraction, elementwise, indexing, normalisation, recurrent, shaping, spatial
from weightgen.structure.rules.call import Call, Rule, answer, rule, rules

__all__ = [
    "Call", "Rule", "answer", "contraction", "elementwise", "indexing", "normalisation", "recurrent", "rule", "rules",
    "shaping", "spatial",
]  # fmt: skip
