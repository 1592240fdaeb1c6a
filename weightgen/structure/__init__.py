"""Which axes of a network belong together, and how two networks are brought into the same order."""

from weightgen.structure.alignment import Aligner, aligned_distances
from weightgen.structure.axes import AxisGroup, Member, axis_groups

__all__ = ["Aligner", "AxisGroup", "Member", "aligned_distances", "axis_groups"]
