import warnings

import pytest
import torch
from torch import nn

from weightgen.errors import WeightgenError
from weightgen.generators.conditions import Category, Scalar
from weightgen.generators.hypernetwork import hypernetwork
from weightgen.generators.hypernetwork_diagnostics import diagnose

CNN = "weightgen/cnn?channels=4"


def diagnosed(**form):
    torch.manual_seed(0)
    hyper = hypernetwork(CNN, Scalar(0, 180), **form)
    images, labels = torch.randn(32, 1, 8, 8), torch.randint(10, (32,))
    return diagnose(hyper, lambda z: nn.functional.cross_entropy(hyper.forward_at(z, images), labels))


def test_the_plain_form_is_told_for_what_it_is():
    with pytest.warns(UserWarning, match=r"grows with \|z\| \(slope 1.00\).*input_encoding=True"):
        plain = diagnosed(input_encoding=False, output_encoding=False)
    assert plain.slope == pytest.approx(1, abs=1e-4)
    assert plain.features[0] == plain.weights[0] == 0
    half, whole = plain.weights[4], plain.weights[8]
    assert whole == pytest.approx(2 * half, rel=1e-3)


def test_the_default_is_invariant(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = diagnosed()
    assert abs(found.slope) < 0.2
    assert found.weights == pytest.approx([1] * 9, abs=1e-4)
    assert found.gradient_variation < 0.3
    found.plot(tmp_path / "found.png")
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")


def test_gradients_vary_more_in_the_plain_form():
    with pytest.warns(UserWarning):
        plain = diagnosed(input_encoding=False)
    assert plain.gradient_variation > 2 * diagnosed().gradient_variation


def test_what_cannot_be_diagnosed():
    hyper = hypernetwork(CNN, {"kind": Category(("a", "b"))})
    with pytest.raises(WeightgenError, match="no range; got kind"):
        diagnose(hyper)
    with pytest.raises(WeightgenError, match="too few conditions"):
        diagnose(hypernetwork(CNN, 1), points=2)
    assert diagnose(hypernetwork(CNN, 1)).gradient_variation is None
