"""Splits that do not leak: what belongs together stays on one side."""

import hashlib
from collections.abc import Sequence
from typing import Any

PARTS = ("train", "validation", "test")


def split_ids(
    rows: Sequence[tuple[str, Any]], edges: Sequence[tuple[str, str]], ratios: Sequence[float], seed: int
) -> dict[str, list[str]]:
    """Ids in three parts.

    Args:
        rows: (id, key); networks with the same key stay together, those without one stand alone.
        edges: (child, parent); networks that an edge joins stay together.
        ratios: shares of the parts.
        seed: another one gives another split; the same one the same, whatever the order of the rows.
    """
    leader = {key: key for key, _ in rows}

    def find(key: str) -> str:
        while leader[key] != key:
            leader[key] = leader[leader[key]]
            key = leader[key]
        return key

    first: dict[Any, str] = {}
    for key, value in rows:
        if value not in (None, ""):
            leader[find(key)] = find(first.setdefault(value, key))
    parents: dict[str, str] = {}
    for child, parent in edges:
        # Two children of one parent belong together even if the parent is not among the rows.
        for other in (parent if parent in leader else parents.setdefault(parent, child),):
            if child in leader and other in leader:
                leader[find(child)] = find(other)
    groups: dict[str, list[str]] = {}
    for key, _ in rows:
        groups.setdefault(find(key), []).append(key)
    # A group is known by its least id, which does not depend on how it was found.
    members = {min(group): sorted(group) for group in groups.values()}
    order = sorted(members, key=lambda key: hashlib.blake2b(f"{seed} {key}".encode(), digest_size=16).digest())
    parts: dict[str, list[str]] = {name: [] for name in PARTS}
    for key in order:
        # Each group goes where most is still lacking.
        lacking = [ratio * len(rows) - len(parts[name]) for name, ratio in zip(PARTS, ratios, strict=True)]
        parts[PARTS[lacking.index(max(lacking))]] += members[key]
    return parts
