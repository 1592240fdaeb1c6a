"""Folders of networks that can be asked questions."""

from weightgen.zoo.result import Query
from weightgen.zoo.row import Row
from weightgen.zoo.tree import F, has_tensor, matches
from weightgen.zoo.zoo import Zoo

__all__ = ["F", "Query", "Row", "Zoo", "has_tensor", "matches"]
