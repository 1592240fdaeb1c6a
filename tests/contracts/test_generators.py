"""What every generator and every trivial baseline promises, whatever its method."""

from collections.abc import Callable

import pytest
import torch

from weightgen.checkpoint import Checkpoint
from weightgen.generators.baselines import baselines
from weightgen.generators.generator import Generator, generators
from weightgen.instructions import Request
from weightgen.training.population import unstack

Sample = Callable[[int, int], list[Checkpoint]]


def of_generator(pico, name: str, task: str, architecture: str) -> Sample:
    """Every registered generator must have a pico twin here, saved and loaded again."""
    folders = {"igpg": lambda _: pico.generator, "hypernetwork": pico.hypernetwork, "neumeta": pico.neumeta}
    loaded = generators[name].from_pretrained(folders[name](architecture))
    assert isinstance(loaded, Generator)
    request = Request(f"a network for {task}", task, architecture)
    return lambda num, seed: loaded.sample(request, num, seed)


def of_baseline(pico, name: str, task: str, architecture: str) -> Sample:
    cell = next(cell for cell in pico.cells if (cell.task, str(cell.architecture)) == (task, architecture))
    aligned = pico.tokenizer.normalizer(cell.architecture).align(cell.tensors, task)

    def sample(num: int, seed: int) -> list[Checkpoint]:
        drawn = baselines[name](aligned, num, torch.Generator().manual_seed(seed))
        return [Checkpoint(cell.architecture, state) for state in unstack(drawn)]

    return sample


METHODS = [(of_generator, name) for name in generators] + [(of_baseline, name) for name in baselines]


@pytest.mark.parametrize("architecture", ["weightgen/mlp?hidden=8", "weightgen/cnn?channels=4"])
@pytest.mark.parametrize(("make", "name"), METHODS, ids=[name for _, name in METHODS])
def test_promises(pico, make, name, architecture):
    sample = make(pico, name, "digits", architecture)
    torch.manual_seed(0)
    networks = sample(8, 3)
    assert len(networks) == 8
    for network in networks:
        assert str(network.architecture) == architecture
        assert network.non_finite() == []
        assert network.build()(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    ids = [network.id for network in networks]
    torch.manual_seed(1)
    assert [network.id for network in sample(8, 3)] == ids, "the same seed, whatever the global random state"
    if name != "soup of 16":  # of this small zoo it is the mean of all, which no seed changes
        assert [network.id for network in sample(8, 4)] != ids


def test_every_generator_is_in_the_table():
    assert set(generators) == {"hypernetwork", "igpg", "neumeta"}
