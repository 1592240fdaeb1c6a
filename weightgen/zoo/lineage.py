"""Lineage: which network was made from which, as the cards declare it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weightgen.zoo.row import Row
    from weightgen.zoo.zoo import Zoo


INFERRED = "inferred"
"""The source of edges that were guessed from weights."""


@dataclass(frozen=True)
class Edge:
    """A child was made from a parent.

    Args:
        child: an id.
        parent: an id, or the name of a network that may be in no zoo, such as the base of an adapter.
        confidence: 1 if it was declared.
        source: `card` if it was declared; `inferred` if it was guessed from weights.
    """

    child: str
    parent: str
    confidence: float
    source: str


@dataclass(frozen=True)
class Lineage:
    """The edges among the ancestors and descendants of one network.

    Args:
        id: of the network.
        names: id → name, of all of them that are in the zoo.
        edges: in the order of children and parents.
    """

    id: str
    names: dict[str, str]
    edges: tuple[Edge, ...]

    @classmethod
    def of(cls, zoo: "Zoo", row: "Row", inferred: bool = False) -> "Lineage":
        """The lineage of a row, as it was declared; with the edges that were guessed if `inferred` is set."""
        names = {row.id: row.name}
        edges: dict[tuple[str, str, str], Edge] = {}
        for near, far in (("child", "parent"), ("parent", "child")):
            frontier = {row.id}
            seen = {row.id}
            while frontier:
                # A parent may be recorded by its name.
                wanted = list(frontier) + ([names[one] for one in frontier if one in names] if near == "parent" else [])
                statement = f"SELECT child, parent, confidence, source FROM lineage WHERE {near} IN ({{values}})"
                all_found = (Edge(*one) for one in zoo.catalogue.rows_in(statement, wanted))
                found = [edge for edge in all_found if inferred or edge.source != INFERRED]
                known = _known(zoo, [getattr(edge, far) for edge in found])
                names.update(known.values())
                frontier = set()
                for edge in found:
                    child, parent = (known[one][0] if one in known else one for one in (edge.child, edge.parent))
                    if near == "parent":
                        parent = next((key for key in (parent,) if key in names), _by_name(names, parent))
                    edges[child, parent, edge.source] = Edge(child, parent, edge.confidence, edge.source)
                    frontier.add(parent if far == "parent" else child)
                frontier -= seen
                seen |= frontier
        return cls(row.id, names, tuple(edges[key] for key in sorted(edges)))

    def ancestors(self) -> list[str]:
        """Ids, or names of networks that are not there, of all it was made from, nearest first."""
        return self._reached("child", "parent")

    def descendants(self) -> list[str]:
        """Ids of all that was made from it, nearest first."""
        return self._reached("parent", "child")

    def children(self, key: str) -> list[Edge]:
        """The edges to what was made from a network directly."""
        return [edge for edge in self.edges if edge.parent == key]

    def parents(self, key: str) -> list[Edge]:
        """The edges to what a network was made from directly."""
        return [edge for edge in self.edges if edge.child == key]

    def _reached(self, near: str, far: str) -> list[str]:
        found: dict[str, None] = {}
        frontier = [self.id]
        while frontier:
            frontier = [
                getattr(edge, far)
                for key in frontier
                for edge in self.edges
                if getattr(edge, near) == key and getattr(edge, far) not in found and getattr(edge, far) != self.id
            ]
            found.update(dict.fromkeys(frontier))
        return list(found)

    def lines(self) -> Iterator[str]:
        """A tree as text: ancestors above, then the network, then its descendants."""
        for depth, key in enumerate(reversed(self.ancestors())):
            yield f"{'  ' * depth}{self.names.get(key, key)}"
        depth = len(self.ancestors())
        yield f"{'  ' * depth}{self.names[self.id]}  ←"
        yield from self._below(self.id, depth + 1, {self.id})

    def _below(self, key: str, depth: int, seen: set[str]) -> Iterator[str]:
        for edge in self.children(key):
            guessed = "" if edge.source == "card" else f"  ({edge.source}, {edge.confidence:.2f})"
            yield f"{'  ' * depth}{self.names.get(edge.child, edge.child)}{guessed}"
            if edge.child not in seen:
                yield from self._below(edge.child, depth + 1, seen | {edge.child})

    def keys(self) -> list[str]:
        """Ids, or names of networks that are not there, of it and of all that it is joined to."""
        return list(dict.fromkeys([self.id, *(key for edge in self.edges for key in (edge.parent, edge.child))]))

    def graphviz(self) -> str:
        """The graph in Graphviz's language; guessed edges are dashed."""
        nodes = [f"  {_quoted(key)} [label={_quoted(self.names.get(key, key))}];" for key in self.keys()]
        edges = [
            f"  {_quoted(edge.parent)} -> {_quoted(edge.child)}{'' if edge.source == 'card' else ' [style=dashed]'};"
            for edge in self.edges
        ]
        return "\n".join(["digraph lineage {", *nodes, *edges, "}"]) + "\n"


def _known(zoo: "Zoo", keys: list[str]) -> dict[str, tuple[str, str]]:
    """Each key that is an id or a name of the zoo → (id, name)."""
    found: dict[str, tuple[str, str]] = {}
    for column in ("name", "id"):
        statement = f"SELECT {column}, id, name FROM models WHERE {column} IN ({{values}})"
        found.update({one: (key, name) for one, key, name in zoo.catalogue.rows_in(statement, keys)})
    return found


def _by_name(names: dict[str, str], name: str) -> str:
    return next((key for key, each in names.items() if each == name), name)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'
