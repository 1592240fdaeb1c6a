"""The networks of a zoo, stacked by task and architecture for what learns from them."""

from weightgen.architecture import Architecture
from weightgen.tokenizers import Cell
from weightgen.training.population import stack
from weightgen.zoo.zoo import Zoo


def zoo_cells(zoo: Zoo, expression: str = "split = 'train'") -> list[Cell]:
    """The networks for which `expression` holds, one Cell a task and architecture, in the order they were added."""
    found: dict[tuple[str, str], list] = {}
    for row in zoo.query(expression):
        if row.task is not None:
            found.setdefault((row.task, row.architecture), []).append(row)
    return [
        Cell(
            task,
            Architecture.parse(architecture),
            stack([row.load().state_dict() for row in rows]),
            [row.id for row in rows],
            [row.metrics.get("accuracy") for row in rows],
        )
        for (task, architecture), rows in found.items()
    ]
