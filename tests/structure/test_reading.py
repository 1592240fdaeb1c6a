import pytest
from torch import nn

from weightgen.structure.reading import reads, writes


@pytest.mark.parametrize(
    ("layer", "reading", "writing"),
    [
        (nn.Linear(2, 3), 1, 0),
        (nn.Conv2d(2, 3, 1), 1, 0),
        (nn.ConvTranspose1d(2, 3, 1), 0, 1),
        (nn.LayerNorm(2), None, None),
        (nn.Embedding(2, 3), None, None),
    ],
)
def test_layers_that_contract_read_one_axis_and_write_the_other(layer, reading, writing):
    module = nn.Module()
    module.add_module("layer", layer)
    axes = range(layer.weight.dim())
    assert [axis for axis in axes if reads(module, "layer.weight", axis)] == ([] if reading is None else [reading])
    assert [axis for axis in axes if writes(module, "layer.weight", axis)] == ([] if writing is None else [writing])
    if getattr(layer, "bias", None) is not None:
        assert writes(module, "layer.bias", 0) == (writing is not None) and not reads(module, "layer.bias", 0)


def test_the_transposed_layer_of_gpt2():
    from transformers.pytorch_utils import Conv1D

    module = nn.Sequential(Conv1D(5, 4))
    assert reads(module, "0.weight", 0) and writes(module, "0.weight", 1) and writes(module, "0.bias", 0)
