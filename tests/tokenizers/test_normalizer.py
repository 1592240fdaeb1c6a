import pytest
import torch

from weightgen.architecture import Architecture
from weightgen.errors import UnknownNameError
from weightgen.structure.alignment import flat
from weightgen.tokenizers.normalizer import Normalizer
from weightgen.training.population import initial, shared_logits

ARCHITECTURE = Architecture.parse("weightgen/cnn?channels=4,3&grid=2")
NETWORKS = {"digits": initial(ARCHITECTURE, range(6)), "mnist": initial(ARCHITECTURE, range(6, 10))}
NORMALIZER = Normalizer.fit(ARCHITECTURE, 16, NETWORKS)


@pytest.mark.parametrize("task", NETWORKS)
def test_denormalising_undoes_normalising(task):
    aligned = NORMALIZER.align(NETWORKS[task], task)
    tokens = NORMALIZER.normalise(aligned, task)
    assert tokens.shape == (len(flat(aligned)), NORMALIZER.layout.tokens, 16)
    assert not tokens[:, ~NORMALIZER.layout.mask].any()
    found = NORMALIZER.denormalise(tokens, task)
    assert list(found) == list(aligned)
    for name, tensor in aligned.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(NORMALIZER.normalise(found, task), tokens, rtol=1e-4, atol=1e-5)


def test_a_reference_is_zero_and_values_are_about_one():
    reference = {name: tensor[None] for name, tensor in NORMALIZER.references["mnist"].items()}
    assert not NORMALIZER.normalise(reference, "mnist").any()
    tokens = NORMALIZER.normalise(NORMALIZER.align(NETWORKS["digits"], "digits"), "digits")
    tokens = tokens[:, NORMALIZER.layout.mask]
    assert 0.5 < tokens.std() < 1.5


def test_normalising_keeps_functions():
    images = torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    call = shared_logits(ARCHITECTURE)
    tensors = NETWORKS["digits"]
    found = NORMALIZER.denormalise(NORMALIZER.normalise(NORMALIZER.align(tensors, "digits"), "digits"), "digits")
    torch.testing.assert_close(call(found, images), call(tensors, images), rtol=1e-4, atol=1e-5)


def test_aligned_networks_lie_nearer_together():
    aligned = flat(NORMALIZER.align(NETWORKS["digits"], "digits"))
    plain = flat(NETWORKS["digits"])
    assert (aligned - aligned.mean(0)).norm() < 0.95 * (plain - plain.mean(0)).norm()


def test_a_task_that_was_not_seen_is_named_with_its_neighbours():
    with pytest.raises(UnknownNameError, match=r"unknown task of weightgen/cnn.*'digit'.*digits"):
        NORMALIZER.align(NETWORKS["digits"], "digit")
