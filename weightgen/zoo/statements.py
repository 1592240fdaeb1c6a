"""From the tree of a query to SQL over the table `models`, in which every value is bound and never pasted."""

import json
import re
from collections.abc import Callable
from typing import Any

from weightgen.zoo.tree import (
    Among,
    And,
    Between,
    Comparison,
    Field,
    HasTensor,
    In,
    Known,
    Like,
    Matches,
    Node,
    Not,
    Or,
    Value,
)

SQL = tuple[str, list[Any]]
"""A piece of SQL and the values of its question marks, in order."""

_COMPUTED = {
    "tensors": "(SELECT count(*) FROM tensors WHERE model = models.number)",
    "zeros": "(SELECT sum(zeros) FROM tensors WHERE model = models.number)",
    "non_finite": "(SELECT sum(non_finite) FROM tensors WHERE model = models.number)",
}

_DECLARED = "(SELECT * FROM lineage WHERE source != 'inferred')"
"""What was guessed from weights is never mixed with what was declared."""

_SETS = {"tag": ("models.number", "model", "tags"), "parent": ("models.id", "child", _DECLARED)}
"""Of each set the key of a network, the column that holds it, and the table."""


def splits_of(field: Field) -> tuple[str, ...]:
    """The splits a metric may be on: without a split it is that of the test data, else one of unstated data."""
    return ("test", "unstated") if field.split == "test" else (field.split,)


IsRare = Callable[[str, list[Any]], bool]
"""Whether a SELECT has few rows, so that a list of them is worth making."""


def condition(node: Node, rare: IsRare = lambda statement, values: True, positive: bool = True) -> SQL:
    """A tree as an SQL condition.

    Args:
        rare: says of a SELECT by an index whether it has few rows; those are then looked at instead of all networks.
        positive: not below a `not`, where a part that is implied may be added.
    """
    if isinstance(node, (And, Or)):
        if not node.parts:
            return "1", []
        parts = [condition(part, rare, positive) for part in node.parts]
        word = " AND " if isinstance(node, And) else " OR "
        return word.join(f"({text})" for text, _ in parts), [value for _, values in parts for value in values]
    if isinstance(node, Not):
        part, values = condition(node.part, rare, False)
        return f"NOT ({part})", values
    if isinstance(node, HasTensor):
        return _tensor(node)
    if isinstance(node, Matches):
        return "models.number IN (SELECT rowid FROM texts WHERE texts MATCH ?)", [words(node.words)]
    if isinstance(node, Among):
        return "models.id IN (SELECT value FROM json_each(?))", [json.dumps(node.ids)]
    if isinstance(node, In) and len({isinstance(value, str) for value in node.values}) == 2:
        texts = tuple(value for value in node.values if isinstance(value, str))
        numbers = tuple(value for value in node.values if not isinstance(value, str))
        return condition(Or((In(node.field, texts), In(node.field, numbers))), rare, positive)
    return _compared(node, rare, positive)


def _compared(node: Comparison | In | Between | Like | Known, rare: IsRare, positive: bool) -> SQL:
    test, bound = _test(node)
    like = bound[0] if bound else None
    if node.field.group == "set":
        key, member, table = _SETS[node.field.name]
        among = f"SELECT {member} FROM {table} WHERE {node.field.name} {test}"
        if rare(among, bound):
            return f"{key} IN ({among})", bound
        return f"EXISTS ({among} AND {member} = {key})", bound
    left, values = expression(node.field, like)
    if not positive or node.field.group in ("", "set") or isinstance(node, Known):
        return f"{left} {test}", [*values, *bound]
    # Implied by the comparison, and answered by an index.
    table = node.field.group
    where, chosen = "name = ?", [node.field.name]
    if table == "metrics":
        splits = splits_of(node.field)
        where, chosen = f"name = ? AND split IN ({', '.join('?' * len(splits))})", [node.field.name, *splits]
    among = f"SELECT model FROM {table} WHERE {where} AND value {test}"
    if not rare(among, [*chosen, *bound]):
        return f"{left} {test}", [*values, *bound]
    return f"models.number IN ({among}) AND {left} {test}", [*chosen, *bound, *values, *bound]


def _test(node: Comparison | In | Between | Like | Known) -> SQL:
    """What stands right of a field."""
    if isinstance(node, Comparison):
        return f"{node.operator} ?", [node.value]
    if isinstance(node, In):
        return f"IN ({', '.join('?' * len(node.values))})", list(node.values)
    if isinstance(node, Between):
        return "BETWEEN ? AND ?", [node.least, node.greatest]
    if isinstance(node, Like):
        return f"{node.word.upper()} ?", [node.pattern]
    return "IS NOT NULL", []


def value_test(node: Node, field: Field) -> SQL | None:
    """What stands right of the value in a comparison of that field; None for any other node."""
    if not isinstance(node, (Comparison, In, Between)):
        return None
    same = (node.field.group, node.field.name, node.field.split) == (field.group, field.name, field.split)
    return _test(node) if same else None


def expression(field: Field, like: Value | None = None) -> SQL:
    """A field as an SQL expression, NULL where it is unknown.

    Args:
        like: a value it is compared with; hyperparameters of another kind then count as unknown.
    """
    if field.group == "metrics":
        # A network measured on several data sets counts with the first figure of its card.
        splits = splits_of(field)
        order = "split = 'test' DESC, position" if len(splits) > 1 else "position"
        marks = ", ".join("?" * len(splits))
        return (
            f"(SELECT value FROM metrics WHERE model = models.number AND name = ? AND split IN ({marks})"
            f" ORDER BY {order} LIMIT 1)",
            [field.name, *splits],
        )
    if field.group == "hyperparameters":
        kinds = {str: " AND typeof(value) = 'text'", type(None): ""}
        kind = kinds.get(type(like), " AND typeof(value) IN ('integer', 'real')")
        return f"(SELECT value FROM hyperparameters WHERE model = models.number AND name = ?{kind})", [field.name]
    if field.group == "set":
        key, member, table = _SETS[field.name]
        return f"(SELECT min({field.name}) FROM {table} WHERE {member} = {key})", []
    # The name is one of the columns that the tree allows, never text of the user.
    return _COMPUTED.get(field.name, f"models.{field.name}"), []


def _tensor(node: HasTensor) -> SQL:
    where, values = f"name {node.word.upper()} ?", [node.name]
    if node.shape is not None:
        where += " AND json_array_length(shape) = ?"
        values.append(len(node.shape))
        for axis, size in enumerate(node.shape):
            if size is not None:
                where += " AND json_extract(shape, ?) = ?"
                values += [f"$[{axis}]", size]
    return f"EXISTS (SELECT 1 FROM tensors WHERE model = models.number AND {where})", values


def words(text: str) -> str:
    """Words as a full-text query: each is quoted, so that none is an operator."""
    found = re.findall(r"[^\s\0]+", text)
    quoted = ['"' + word.rstrip("*").replace('"', '""') + '"' + ("*" if word.endswith("*") else "") for word in found]
    return " ".join(one for one in quoted if one not in ('""', '""*')) or '""'
