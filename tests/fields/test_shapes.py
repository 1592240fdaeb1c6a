import pytest
import torch
from scipy.spatial import cKDTree

from weightgen.errors import UnknownNameError, WeightgenError
from weightgen.fields.shapes import CLASSES, make_shape, make_shapes


def anywhere(count, seed=0):
    return 2 * torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) - 1


@pytest.mark.parametrize("name", CLASSES)
def test_distances_are_those_to_the_surface(name):
    shape, points = make_shape(name, 5), anywhere(1500)
    surface = shape.surface(3000, torch.Generator().manual_seed(1))
    nearest = torch.from_numpy(cKDTree(surface.numpy()).query(points.numpy())[0]).float()
    distance = shape.distance(points)
    outside = distance > 0
    # A finite cloud of the surface is never nearer than the surface itself, and hardly further.
    assert (nearest - distance)[outside].min() > -2e-3
    assert (nearest - distance)[outside].mean() < 0.02
    # Within, where solids overlap, the surface may be further than the union says, never nearer.
    assert (nearest + distance)[~outside].min() > -2e-3
    assert shape.distance(surface).abs().max() < 2e-3
    assert surface.norm(dim=-1).max() < 1 and surface.norm(dim=-1).max() > 0.4


@pytest.mark.parametrize("name", CLASSES)
def test_parts_are_all_there(name):
    shape = make_shape(name, 3)
    labels = shape.labels(shape.surface(2000, torch.Generator().manual_seed(0)))
    assert labels.unique().tolist() == list(range(len(shape.parts)))
    assert (shape.distance(anywhere(4000)) < 0).any()


def test_seeds_give_proportions_and_pose():
    points = anywhere(100)
    one, again, other = (make_shape("chair", seed).distance(points) for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.allclose(one, other)
    assert len(CLASSES) >= 10
    names = [shape.name for shape in make_shapes(2 * len(CLASSES), 0)]
    assert sorted(names) == sorted([*CLASSES, *CLASSES])


def test_what_is_no_shape_is_refused():
    with pytest.raises(UnknownNameError, match="chair"):
        make_shape("chiar", 0)
    with pytest.raises(WeightgenError, match="got 0"):
        make_shapes(0, 0)
