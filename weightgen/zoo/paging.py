"""Marks of pages: where a page of a query ends, as a text that can be given to whoever asks for the next."""

import base64
import json
from collections.abc import Sequence
from typing import Any

from weightgen.errors import QueryError


def mark(values: Sequence[Any]) -> str:
    """The sort keys of the last network of a page and its id, as one word."""
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode()


def unmarked(word: str, length: int) -> list[Any]:
    """The values of a mark, which may come from anywhere.

    Raises:
        QueryError: if it is none, or holds another number of values.
    """
    try:
        values = json.loads(base64.urlsafe_b64decode(word.encode()))
    except (ValueError, RecursionError) as error:
        raise QueryError("not the mark of a page", got=word[:40]) from error
    kinds = (str, int, float, type(None))
    if not isinstance(values, list) or len(values) != length or not all(isinstance(one, kinds) for one in values):
        raise QueryError("the mark of a page of another order", got=word[:40], remedy="begin again with the first page")
    return values
