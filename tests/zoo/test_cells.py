import pytest
import torch

from weightgen.architecture import Architecture
from weightgen.checkpoint import Card, Checkpoint
from weightgen.errors import QueryError
from weightgen.zoo import Zoo
from weightgen.zoo.cells import zoo_cells

SMALL = Architecture.parse("weightgen/mlp?hidden=2")
WIDE = Architecture.parse("weightgen/mlp?hidden=3")


def network(seed: int, architecture: Architecture, kind: torch.dtype = torch.float32, **card) -> Checkpoint:
    random = torch.Generator().manual_seed(seed)
    shapes = architecture.parameter_shapes()
    tensors = {name: torch.randn(shape, generator=random).to(kind) for name, shape in shapes.items()}
    return Checkpoint(architecture, tensors, Card(**card))


NETWORKS = [
    network(0, SMALL, task="digits", split="train"),
    network(1, WIDE, task="digits", split="train"),
    network(2, SMALL, task="mnist", split="train"),
    network(3, SMALL, task="digits", split="test"),
    network(4, SMALL, torch.float16, task="digits", split="train"),
    network(5, SMALL, split="train"),
]


@pytest.fixture
def zoo(tmp_path):
    zoo = Zoo.create(tmp_path / "zoo")
    zoo.add(NETWORKS)
    return zoo


def test_networks_are_stacked_by_task_and_architecture(zoo):
    cells = {(cell.task, cell.architecture): cell for cell in zoo_cells(zoo)}
    members = {("digits", SMALL): [0, 4], ("digits", WIDE): [1], ("mnist", SMALL): [2]}
    assert cells.keys() == members.keys()
    for key, numbers in members.items():
        assert list(cells[key].ids) == [NETWORKS[number].id for number in numbers]
        assert list(cells[key].tensors) == list(key[1].parameter_shapes())
        for name, tensor in cells[key].tensors.items():
            assert tensor.dtype == torch.float32
            assert torch.equal(tensor, torch.stack([NETWORKS[number].tensor(name).float() for number in numbers]))


def test_an_expression_chooses_the_networks(zoo):
    (cell,) = zoo_cells(zoo, "split = 'test'")
    assert list(cell.ids) == [NETWORKS[3].id]
    assert zoo_cells(zoo, "task = 'cifar10'") == []
    with pytest.raises(QueryError):
        zoo_cells(zoo, "task =")
