"""What writes new networks."""

from weightgen.generators.generator import Generator, generators

__all__ = ["Generator", "generators"]
