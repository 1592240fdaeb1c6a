"""Folders of networks that can be asked questions."""

from weightgen.zoo.zoo import Query, Row, Zoo

__all__ = ["Query", "Row", "Zoo"]
