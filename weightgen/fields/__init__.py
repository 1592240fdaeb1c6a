"""Signals stored as tri-planes: three feature planes and a small decoder, fitted to distances, solids and scenes."""

from weightgen.fields.triplane import TriPlane, TriPlaneConfig, evaluate, initial

__all__ = ["TriPlane", "TriPlaneConfig", "evaluate", "initial"]
