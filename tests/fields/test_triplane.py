import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weightgen.architecture import Architecture
from weightgen.checkpoint import Checkpoint
from weightgen.errors import ArchitectureError, UnknownNameError
from weightgen.fields.triplane import (
    TriPlane,
    TriPlaneConfig,
    encode,
    evaluate,
    initial,
    reorder,
    sample_planes,
)

SMALL = TriPlaneConfig(resolution=6, channels=3, hidden=(8,), frequencies=2)


@pytest.mark.parametrize("decoder", ["siren", "relu"])
@pytest.mark.parametrize("aggregation", ["sum", "concat", "product"])
def test_many_fields_are_each_their_own(aggregation, decoder):
    config = TriPlaneConfig(6, 3, (8, 8), 2, aggregation, decoder, 2)
    tensors, points = initial(config, [1, 2, 3]), 2 * torch.rand(3, 7, 3) - 1
    together = evaluate(config, tensors, points)
    assert together.shape == (3, 7, 2)
    for index in range(3):
        module = TriPlane(config)
        module.load_state_dict({name: tensor[index] for name, tensor in tensors.items()})
        assert torch.allclose(module(points[index]), together[index], atol=1e-5)
    assert not torch.allclose(together[0], evaluate(config, tensors, points[[0, 0, 0]])[1])


@pytest.mark.parametrize("aggregation", ["sum", "concat", "product"])
def test_every_tensor_learns(aggregation):
    config = TriPlaneConfig(4, 2, (8,), 1, aggregation, "siren", 1)
    tensors = {name: tensor.requires_grad_() for name, tensor in initial(config, [0]).items()}
    evaluate(config, tensors, 2 * torch.rand(1, 64, 3) - 1).square().sum().backward()
    assert all(tensor.grad.any() for tensor in tensors.values())


def test_features_lie_where_the_letters_say():
    # A plane whose feature is its column, or its row, tells the coordinate that runs along it.
    config = TriPlaneConfig(5, 1, (4,), aggregation="concat")
    line = torch.linspace(-1, 1, 5)
    points = 2 * torch.rand(1, 9, 3) - 1
    columns = line.expand(1, 3, 1, 5, 5)
    assert torch.allclose(sample_planes(config, columns, points), points[..., [0, 0, 1]], atol=1e-6)
    assert torch.allclose(sample_planes(config, columns.transpose(-1, -2), points), points[..., [1, 2, 2]], atol=1e-6)


def test_corners_are_aligned_as_the_form_says():
    planes = torch.zeros(1, 3, 1, 4, 4)
    planes[..., 0, 0] = 1.0
    corner = torch.full((1, 1, 3), -1.0)
    inner = torch.full((1, 1, 3), -0.75)
    aligned, not_aligned = (TriPlaneConfig(4, 1, (4,), align_corners=aligned) for aligned in (True, False))
    assert sample_planes(aligned, planes, corner).item() == 3.0
    assert sample_planes(aligned, planes, inner).item() < 3.0
    assert sample_planes(not_aligned, planes, inner).item() == pytest.approx(3.0)


@settings(deadline=None, max_examples=20)
@given(st.permutations(["xy", "xz", "yz"]), st.lists(st.booleans(), min_size=3, max_size=3))
def test_planes_of_another_order_are_the_same_field(planes, turned):
    order = "-".join(pair[::-1] if turn else pair for pair, turn in zip(planes, turned, strict=True))
    tensors, points = initial(SMALL, [0]), 2 * torch.rand(1, 5, 3) - 1
    other = TriPlaneConfig(resolution=6, channels=3, hidden=(8,), frequencies=2, order=order)
    canonical = {**tensors, "planes": reorder(tensors["planes"], order)}
    assert torch.allclose(evaluate(other, tensors, points), evaluate(SMALL, canonical, points), atol=1e-6)


def test_channels_change_places_with_the_columns_that_read_them():
    tensors, points = initial(SMALL, [0]), 2 * torch.rand(1, 5, 3) - 1
    order = torch.tensor([2, 0, 1])
    weight = tensors["decoder.0.weight"].clone()
    weight[..., :3] = weight[..., :3][..., order]
    other = {**tensors, "planes": tensors["planes"][:, :, order], "decoder.0.weight": weight}
    assert torch.allclose(evaluate(SMALL, other, points), evaluate(SMALL, tensors, points), atol=1e-6)


def test_the_encoding_is_as_published():
    points = torch.rand(2, 3)
    assert encode(points, 10).shape == (2, 63)
    assert torch.allclose(encode(points, 2)[:, 6:9], (2 * points).sin())
    assert encode(points, 0) is points


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"channels": 0}, ArchitectureError, "channels; got 0; expected 1 to 1024"),
        ({"channels": 5000}, ArchitectureError, "channels; got 5000"),
        ({"resolution": 1}, ArchitectureError, "resolution"),
        ({"hidden": ()}, ArchitectureError, "hidden"),
        ({"outputs": 0}, ArchitectureError, "outputs"),
        ({"frequencies": 17}, ArchitectureError, "frequencies"),
        ({"order": "xy-xz"}, ArchitectureError, "order of planes"),
        ({"order": "xy-yx-yz"}, ArchitectureError, "order of planes"),
        ({"aggregation": "mean"}, UnknownNameError, "aggregation 'mean'"),
        ({"decoder": "tanh"}, UnknownNameError, "decoder 'tanh'"),
    ],
)
def test_a_form_that_is_none_is_refused(options, error, words):
    with pytest.raises(error, match=words):
        TriPlaneConfig(**options)


def test_a_recipe_builds_a_field(tmp_path):
    architecture = Architecture.parse("weightgen/triplane?channels=3&decoder=relu&hidden=8&order=yz-xz-xy&resolution=6")
    assert Architecture.parse(str(architecture)) == architecture
    module = architecture.build()
    Checkpoint(architecture, module.state_dict()).save(tmp_path / "field.safetensors")
    again = Checkpoint.load(tmp_path / "field.safetensors").build()
    points = torch.rand(4, 3)
    assert torch.equal(again(points), module(points))
    assert sum(one.numel() for one in module.parameters()) == architecture.parameters
    groups = [member.tensor for group in architecture.axes().groups for member in group.members]
    assert "decoder.0.weight" in groups
    with pytest.raises(ArchitectureError, match="size"):
        Architecture.parse("weightgen/triplane?channels=0")
    with pytest.raises(ArchitectureError, match="out of range"):
        Architecture.parse("weightgen/triplane?channels=5000").build()
