"""Query: the networks for which an expression holds, in order; nothing is read before it is asked for."""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weightgen.errors import DuplicateNameError, QueryError
from weightgen.zoo import tree
from weightgen.zoo.neighbours import Neighbour, neighbours
from weightgen.zoo.paging import mark, unmarked
from weightgen.zoo.row import COLUMNS, Row
from weightgen.zoo.splitting import split_ids
from weightgen.zoo.statements import condition, expression, splits_of, value_test, words

if TYPE_CHECKING:
    import pandas
    import pyarrow

    from weightgen.checkpoint import Checkpoint
    from weightgen.zoo.zoo import Zoo

Order = tuple[tuple[tree.Field, bool], ...]
"""Fields to sort by, each with whether the greatest comes first."""


@dataclass(frozen=True)
class Page:
    """Some rows, and the mark behind which the next page begins; None after the last."""

    rows: list[Row]
    next: str | None


@dataclass(frozen=True)
class Query:
    """The networks of a zoo for which an expression holds, in order; nothing is read before it is asked for.

    Without `order_by` they come in the order in which they were added.
    """

    zoo: "Zoo"
    source: str
    condition: tree.Node = dataclasses.field(repr=False)
    order: Order = ()
    maximum: int | None = None

    def where(self, node: tree.Node) -> "Query":
        """Those of them for which another condition holds too."""
        return dataclasses.replace(self, condition=tree.And((self.condition, node)))

    def order_by(self, *keys: str) -> "Query":
        """The same networks sorted by fields, a `-` before a field for the greatest first.

        Networks for which a field is unknown come last; ties are in the order of ids.

        Raises:
            QueryError: if there is no such field.
        """
        order = tuple((tree.field_of(key.removeprefix("-")), key.startswith("-")) for key in keys)
        found = dataclasses.replace(self, order=order)
        found._check_fields([field for field, _ in order])
        return found

    def limit(self, number: int) -> "Query":
        """At most the first `number` of them."""
        return dataclasses.replace(self, maximum=number)

    def count(self) -> int:
        """How many there are."""
        self._check_fields()
        where, values = condition(self.condition, self._is_rare)
        (number,) = self._rows(f"SELECT count(*) FROM models WHERE {where}", values)[0]
        return number if self.maximum is None else min(number, max(self.maximum, 0))

    def ids(self) -> list[str]:
        """The ids, in order."""
        return [row.id for row in self]

    def checkpoints(self) -> Iterator["Checkpoint"]:
        """The networks themselves; tensors are read when they are asked for."""
        return (row.load() for row in self)

    def __iter__(self) -> Iterator[Row]:
        numbers = self._numbers()
        for start in range(0, len(numbers), 500):
            yield from self._fetched(numbers[start : start + 500])

    def page(self, size: int, after: str | None = None) -> Page:
        """One page; the next begins behind a mark and not at a count, so that what is added meanwhile moves nothing.

        Args:
            after: the mark of the page before; None for the first.

        Raises:
            QueryError: if `after` is not a mark of this order.
        """
        self._check_fields()
        keys, bound = self._keys()
        behind, marked = self._behind(after)
        where, values = condition(self.condition, self._is_rare)
        columns = ", ".join(["number", *(key for key, _ in keys), "models.id"])
        statement = f"SELECT {columns} FROM models WHERE ({where}) AND {behind} ORDER BY {self._ordering()} LIMIT ?"
        found = self._rows(statement, [*bound, *values, *marked, *bound, size + 1])
        rows = list(self._fetched([row[0] for row in found[:size]]))
        return Page(rows, mark(found[size - 1][1:]) if len(found) > size > 0 else None)

    def facets(self, *names: str, limit: int = 20) -> dict[str, dict[Any, int]]:
        """For each field, how many networks have each of its most frequent values; None stands for unknown.

        Raises:
            QueryError: if there is no such field.
        """
        fields = [tree.field_of(name) for name in names]
        self._check_fields([*tree.fields(self.condition), *fields])
        where, values = condition(self.condition, self._is_rare)
        found = {}
        for name, field in zip(names, fields, strict=True):
            table, key, bound = "models", *expression(field)
            if field.group == "set":
                tables = {
                    "tag": "models JOIN tags ON tags.model = models.number",
                    "parent": "models JOIN lineage ON child = id",
                }
                table, key, bound = tables[field.name], field.name, []
            statement = f"SELECT {key}, count(*) FROM {table} WHERE {where} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT ?"
            found[name] = dict(self._rows(statement, [*bound, *values, limit]))
        return found

    def explain(self) -> str:
        """The SQL, its values and how SQLite goes about it."""
        self._check_fields()
        statement, values = self._statement()
        plan = self.zoo.catalogue.rows(f"EXPLAIN QUERY PLAN {statement}", values)
        return "\n".join([statement, f"values: {values}", *(f"plan: {step[-1]}" for step in plan)])

    def nearest(self, to: "Checkpoint | str", k: int = 10, space: str = "statistics-v1") -> list[Neighbour]:
        """The `k` of them that are nearest to a network in an embedding space, nearest first; exact.

        Args:
            to: a Checkpoint, or the id or name of a network of the zoo, which is then left out.

        Raises:
            UnknownNameError: if there is no such network or space.
        """
        return neighbours(self, to, k, space)

    def descendants_of(self, name: str) -> "Query":
        """Those of them that were made from a network, directly or not."""
        return self.where(tree.Among(tuple(self.zoo.lineage(name).descendants())))

    def ancestors_of(self, name: str) -> "Query":
        """Those of them that a network was made from, directly or not."""
        return self.where(tree.Among(tuple(self.zoo.lineage(name).ancestors())))

    def split(self, by: str = "run", ratios: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0) -> dict[str, "Query"]:
        """Train, validation and test parts in which no run, and no network with its descendants, is on two sides.

        Args:
            by: the field whose equal values stay together.
            ratios: shares of the parts, of the networks.

        Raises:
            QueryError: for an unknown field, or ratios that are none.
        """
        if len(ratios) != 3 or min(ratios) < 0 or not 0.999 < sum(ratios) < 1.001:
            raise QueryError("ratios are three numbers that sum to 1", got=list(ratios))
        self._check_fields([tree.field_of(by)])
        key, bound = expression(tree.field_of(by))
        where, values = condition(self.condition, self._is_rare)
        rows = self._rows(f"SELECT id, {key} FROM models WHERE {where} ORDER BY id", [*bound, *values])
        edges = self.zoo.catalogue.rows("SELECT child, parent FROM lineage WHERE source != 'inferred'")
        parts = split_ids(rows, edges, ratios, seed)
        return {name: self.where(tree.Among(tuple(ids))) for name, ids in parts.items()}

    def freeze(self, name: str) -> str:
        """Keeps the list of these networks under a name, and gives its hash, which a training run records.

        Raises:
            DuplicateNameError: if the name stands for other networks.
            OutputError: if the zoo cannot be written.
        """
        ids = sorted(self.ids())
        digest = hashlib.sha256("".join(ids).encode()).hexdigest()[:16]
        with self.zoo.catalogue.transaction() as connection:
            known = connection.execute("SELECT digest FROM snapshots WHERE name = ?", (name,)).fetchone()
            if known and known[0] != digest:
                raise DuplicateNameError(f"the snapshot '{name}' holds other networks", remedy="choose another name")
            values = (name, digest, self.source, len(ids))
            connection.execute("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?)", values)
            connection.executemany("INSERT OR IGNORE INTO frozen VALUES (?, ?)", [(name, each) for each in ids])
        return digest

    def records(self) -> Iterator[dict[str, Any]]:
        """One flat record a network: columns, `metrics.NAME`, `hyperparameters.NAME`, and `tags` as one text."""
        for row in self:
            entries = row.to_json()
            tags, metrics, hyperparameters = (entries.pop(key) for key in ("tags", "metrics", "hyperparameters"))
            yield {
                **entries,
                "tags": ",".join(tags),
                **{f"metrics.{name}": value for name, value in metrics.items()},
                **{f"hyperparameters.{name}": value for name, value in hyperparameters.items()},
            }

    def to_pandas(self) -> "pandas.DataFrame":
        """A table of the records; pandas comes with the extra `tables`."""
        import pandas

        return pandas.DataFrame(list(self.records()))

    def to_arrow(self) -> "pyarrow.Table":
        """A table of the records; a column that holds values of several kinds is text. pyarrow comes with `tables`."""
        import pyarrow

        records = list(self.records())
        columns: dict[str, list] = {name: [] for record in records for name in record}
        for name, values in columns.items():
            values.extend(record.get(name) for record in records)
            kinds = {bool: "number", int: "number", float: "number"}
            if len({kinds.get(type(value), type(value)) for value in values if value is not None}) > 1:
                columns[name] = [None if value is None else str(value) for value in values]
            elif any(isinstance(value, float) for value in values):
                columns[name] = [None if value is None else float(value) for value in values]
        return pyarrow.table(columns)

    def _fetched(self, numbers: Sequence[int]) -> Iterator[Row]:
        statement = f"SELECT {COLUMNS} FROM models WHERE number IN ({{values}})"
        found = {row[0]: row for row in self.zoo.catalogue.rows_in(statement, numbers)}
        # A network that was removed meanwhile is no longer there.
        return (Row(self.zoo, *found[number]) for number in numbers if number in found)

    def _numbers(self) -> list[int]:
        self._check_fields()
        quick = self._by_metric()
        if quick is not None:
            return quick
        statement, values = self._statement()
        return [number for (number,) in self._rows(statement, values)]

    def _statement(self) -> tuple[str, list[Any]]:
        _, bound = self._keys()
        limit = -1 if self.maximum is None else max(self.maximum, 0)
        searched = next((part for part in _parts(self.condition) if isinstance(part, tree.Matches)), None)
        if searched and not self.order:
            # Words are found in the order of networks: the first few are there before the last is sought.
            rest = tuple(part for part in _parts(self.condition) if part is not searched)
            where, values = condition(tree.And(rest), self._is_rare)
            start = "SELECT number FROM texts CROSS JOIN models ON models.number = texts.rowid"
            statement = f"{start} WHERE texts MATCH ? AND ({where}) ORDER BY texts.rowid LIMIT ?"
            return statement, [words(searched.words), *values, limit]
        where, values = condition(self.condition, self._is_rare)
        return f"SELECT number FROM models WHERE {where} ORDER BY {self._ordering()} LIMIT ?", [*values, *bound, limit]

    def _keys(self) -> tuple[list[tuple[str, bool]], list[Any]]:
        """The SQL of the sort keys with their direction, and their values."""
        keys, bound = [], []
        for field, descending in self.order:
            key, values = expression(field)
            keys.append((key, descending))
            bound += values
        return keys, bound

    def _ordering(self) -> str:
        if not self.order:
            return "number"
        keys, _ = self._keys()
        # NULLS LAST keeps an index on the column from being used, and these columns have no NULL.
        words = [
            f"{key} {'DESC' if descending else 'ASC'}{'' if key in _NOT_NULL else ' NULLS LAST'}"
            for key, descending in keys
        ]
        return ", ".join([*words, "models.id"])

    def _behind(self, after: str | None) -> tuple[str, list[Any]]:
        """The condition that a network comes after a mark, in the order of the keys and then of ids."""
        if after is None:
            return "1", []
        last = unmarked(after, len(self.order) + 1)
        if not self.order:
            number = self._rows("SELECT number FROM models WHERE id = ?", [last[-1]])
            return "models.number > ?", [number[0][0] if number else 0]
        clause, values = "models.id > ?", [last[-1]]
        for (field, descending), value in reversed(list(zip(self.order, last, strict=False))):
            key, bound = expression(field)
            beyond = f"({key} {'<' if descending else '>'} ? OR {key} IS NULL)" if value is not None else "0"
            passed = [*bound, value, *bound] if value is not None else []
            clause, values = f"({beyond} OR ({key} IS ? AND {clause}))", [*passed, *bound, value, *values]
        return clause, values

    def _by_metric(self) -> list[int] | None:
        """The numbers when a few are wanted in the order of a metric: the beginning of its index is looked through.

        None if the few are not there, or what lies behind the beginning might come between.
        """
        if self.maximum is None or len(self.order) != 1 or self.order[0][0].group != "metrics" or self._are_rare():
            return None
        field = self.order[0][0]
        probe = "SELECT 1 FROM metrics WHERE name = ? AND split = ? LIMIT 1"
        splits = [split for split in splits_of(field) if self._rows(probe, [field.name, split])]
        if len(splits) != 1:
            return None
        found = (self._in_window(field, splits[0], max(self.maximum, 0), window) for window in WINDOWS)
        return next((numbers for numbers in found if numbers is not None), None)

    def _in_window(self, field: tree.Field, split: str, maximum: int, window: int) -> list[int] | None:
        direction = "DESC" if self.order[0][1] else "ASC"
        bounds = [bound for part in _parts(self.condition) if (bound := value_test(part, field))]
        inside = " AND ".join(["name = ?", "split = ?", *(f"value {text}" for text, _ in bounds)])
        chosen = [field.name, split, *(value for _, values in bounds for value in values)]
        first = f"SELECT model, position, value FROM metrics WHERE {inside} ORDER BY value {direction} LIMIT ?"
        # Of several figures of one network the first of its card counts.
        alone = (
            "NOT EXISTS (SELECT 1 FROM metrics AS other WHERE other.model = figure.model AND other.name = ?"
            " AND other.split = ? AND other.position < figure.position)"
        )
        where, values = condition(self.condition, lambda statement, values: False)
        statement = (
            f"SELECT number, figure.value FROM ({first}) AS figure CROSS JOIN models ON models.number = figure.model"
            f" WHERE {alone} AND ({where}) ORDER BY figure.value {direction}, models.id LIMIT ?"
        )
        found = self._rows(statement, [*chosen, window, field.name, split, *values, maximum])
        # Fewer than wanted: those without the figure come behind them.
        if len(found) < maximum or not found:
            return None
        edge = self._rows(f"SELECT value FROM ({first}) LIMIT 1 OFFSET ?", [*chosen, window, window - 1])
        return None if edge and edge[0][0] == found[-1][1] else [number for number, _ in found]

    def _are_rare(self) -> bool:
        """Whether an index says at once that a condition holds for few networks."""
        seen: list[bool] = []

        def note(statement: str, values: list[Any]) -> bool:
            seen.append(self._is_rare(statement, values))
            return seen[-1]

        for part in _parts(self.condition):
            if not isinstance(part, (tree.Or, tree.Not)):
                condition(part, note)
        return any(seen)

    def _is_rare(self, statement: str, values: list[Any]) -> bool:
        count = f"SELECT count(*) FROM ({statement} LIMIT ?)"
        return self.zoo.catalogue.rows(count, [*values, RARE])[0][0] < RARE

    def _rows(self, statement: str, values: Sequence[Any]) -> list[tuple]:
        if tree.uses_words(self.condition):
            self.zoo.catalogue.prepare_texts()
        return self.zoo.catalogue.rows(statement, values)

    def _check_fields(self, chosen: Sequence[tree.Field] | None = None) -> None:
        """A misspelt metric must not look like a zoo without good networks."""
        named = [*tree.fields(self.condition), *(field for field, _ in self.order)] if chosen is None else chosen
        for field in named:
            if field.group == "metrics":
                splits = splits_of(field)
                marks = ", ".join("?" * len(splits))
                known = f"SELECT 1 FROM metrics WHERE name = ? AND split IN ({marks}) LIMIT 1"
                found = self.zoo.catalogue.rows(known, (field.name, *splits))
            elif field.group == "hyperparameters":
                found = self.zoo.catalogue.rows("SELECT 1 FROM hyperparameters WHERE name = ? LIMIT 1", (field.name,))
            else:
                continue
            if not found and len(self.zoo):
                names = self.zoo.fields()
                bare = [name.removeprefix("hyperparameters.") for name in names] if field.bare else []
                raise tree.unknown_field(str(field), self.source or str(field), field.position, [*names, *bare])


WINDOWS = (200, 5000)
"""Figures at the beginning of an index that are looked through for the few that are wanted, few and then many."""

RARE = 5000
"""Rows of which a list is made in less time than a few networks are found among all."""


def _parts(node: tree.Node) -> Iterator[tree.Node]:
    """The conditions that all must hold."""
    if isinstance(node, tree.And):
        for part in node.parts:
            yield from _parts(part)
    else:
        yield node


_NOT_NULL = {
    f"models.{name}" for name in ("name", "id", "architecture", "family", "parameters", "origin", "run", "format")
}
