"""Readers of foreign checkpoints, a file each; what a file is is told by its content, never by its name."""

from weightgen.formats.discovery import Source, discover
from weightgen.formats.format import Network, format_of, formats, read

__all__ = ["Network", "Source", "discover", "format_of", "formats", "read"]
