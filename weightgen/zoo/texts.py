"""The words by which a network is found in a full-text search."""

from typing import Any


def about(architecture: str, entries: Any) -> str:
    """The words of a card, its texts and tags but not its figures; `entries` are the Card's JSON values."""
    try:
        hyperparameters = [
            f"{name} {value}" for name, value in entries["hyperparameters"].items() if isinstance(value, str)
        ]
        made_with = [value for value in entries["made_with"].values() if isinstance(value, str)]
        words = [entries["task"] or "", entries["origin"], entries["run"], *entries["tags"], *entries["parents"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        # A damaged card is reported when the network is asked for; it must not keep the others from being found.
        return architecture
    return " ".join([architecture, *map(str, words), *hyperparameters, *made_with])
