"""Which axes of a network belong together, and how two networks are brought into the same order."""

from weightgen.structure.alignment import Aligner, aligned_distances
from weightgen.structure.axes import AxisGraph, AxisGroup, IndexTable, Member, axis_groups
from weightgen.structure.permutation import permuted

__all__ = [
    "Aligner", "AxisGraph", "AxisGroup", "IndexTable", "Member", "aligned_distances", "axis_groups", "permuted",
]  # fmt: skip
