"""Ways to make a network of another size, a file each; `methods()` has them by name."""

from weightgen.generators.resizing.method import Method, Resized, Sizes, Source, methods

__all__ = ["Method", "Resized", "Sizes", "Source", "methods"]
