"""Morphing: a checkpoint of any network in another size."""

from weightgen.morphing.morph import Morph, morph
from weightgen.morphing.saving import save

__all__ = ["Morph", "morph", "save"]
