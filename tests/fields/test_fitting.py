import pytest
import torch

from weightgen.errors import UnknownNameError, WeightgenError
from weightgen.fields.fitting import Fitting, fit
from weightgen.fields.kinds import KINDS, TRUNCATION
from weightgen.fields.shapes import make_shape
from weightgen.fields.signals import Sampling, sample
from weightgen.fields.surfaces import chamfer, intersection_over_union, march, spread, write_mesh
from weightgen.fields.triplane import TriPlaneConfig

CONFIG = TriPlaneConfig(resolution=12, channels=4, hidden=(16,), decoder="relu", frequencies=0)
FITTING = Fitting(steps=60, points=256)


@pytest.fixture(scope="module")
def samples():
    shapes = [make_shape("mug", 0), make_shape("bottle", 1)]
    return sample(shapes, [0, 1], Sampling(points=2048, probes=512))


@pytest.mark.parametrize("name", KINDS)
def test_fields_learn_their_shapes(name, samples):
    begun = fit(CONFIG, name, samples, [0, 1], Fitting(steps=1, points=256))
    fitted = fit(CONFIG, name, samples, [0, 1], FITTING)
    assert (fitted.losses < 0.95 * begun.losses).all() and fitted.steps.tolist() == [60, 60]
    if name == "sdf":
        assert (fitted.figures["iou"] > 0.5).all()
    elif name == "udf":
        assert (fitted.figures["chamfer"] < 0.08).all()


def test_the_same_seed_gives_the_same_field_and_another_another(samples):
    one, again, other = (fit(CONFIG, "sdf", samples, seeds, FITTING) for seeds in ([0, 1], [0, 1], [5, 6]))
    assert all(torch.equal(tensor, again.tensors[name]) for name, tensor in one.tensors.items())
    # Not only begun at another place: channels are others too.
    assert (one.tensors["planes"] - other.tensors["planes"]).abs().mean() > 0.01


def test_a_field_that_is_good_enough_takes_no_more_steps(samples):
    stop = fit(CONFIG, "sdf", samples, [0, 1], Fitting(60, 256, target=0.01, look_every=20))
    assert stop.steps.max() < 60 and (stop.figures["iou"] >= 0.01).all()
    never = fit(CONFIG, "sdf", samples, [0, 1], Fitting(40, 256, target=1.1, look_every=20))
    assert never.steps.tolist() == [40, 40]
    for kind, target in (("udf", 10.0), ("sdf", 0.0)):
        assert fit(CONFIG, kind, samples, [0, 1], Fitting(40, 256, target=target, look_every=10)).steps.max() == 10


def test_fields_that_stop_leave_the_others_as_they_are(samples):
    both = fit(CONFIG, "sdf", samples, [0, 1], Fitting(30, 256, target=0.5, look_every=10))
    assert (both.figures["iou"] >= 0.5).any() or both.steps.tolist() == [30, 30]
    assert all(tensor.isfinite().all() for tensor in both.tensors.values())


def test_surfaces_come_out_again(samples, tmp_path):
    fitted = fit(CONFIG, "sdf", samples, [0, 1], Fitting(steps=150, points=512))
    one = {name: tensor[:1] for name, tensor in fitted.tensors.items()}
    vertices, faces = march(CONFIG, KINDS["sdf"], one, 32)
    assert make_shape("mug", 0).distance(vertices).abs().mean() < 0.05
    assert vertices.abs().max() <= 1 and faces.max() < len(vertices)
    points = spread(CONFIG, KINDS["sdf"], one, 500)
    assert points.shape == (500, 3) and make_shape("mug", 0).distance(points).abs().mean() < 0.05
    write_mesh(tmp_path / "mug.ply", vertices, faces)
    import trimesh

    again = trimesh.load(tmp_path / "mug.ply", process=False)
    assert torch.allclose(torch.tensor(again.vertices).float(), vertices) and (again.faces == faces.numpy()).all()


def test_a_field_without_surface_says_so():
    nothing = {
        name: torch.zeros(1, *shape) + (5.0 if name == "decoder.1.bias" else 0.0)
        for name, shape in CONFIG.shapes.items()
    }
    with pytest.raises(WeightgenError, match="no surface"):
        march(CONFIG, KINDS["sdf"], nothing, 8)


def test_targets_and_distances_are_inverse():
    distances = torch.linspace(-0.09, 0.09, 7)
    for name in ("sdf", "udf"):
        kind = KINDS[name]
        wanted = distances if kind.solid else distances.abs()
        assert torch.allclose(kind.distance(kind.target(distances).clamp(1e-6, 1 - 1e-6).logit()), wanted, atol=1e-4)
    assert KINDS["sdf"].target(torch.tensor([-9.0, 9.0])).tolist() == [0, 1]
    assert KINDS["udf"].target(torch.tensor([TRUNCATION, 9.0])).abs().max() < 1e-6


def test_the_focal_loss_is_that_of_its_paper():
    raw, truth = torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 0.0]])
    chance = raw.sigmoid()
    right = torch.tensor([[chance[0, 0], 1 - chance[0, 1]]])
    wanted = -torch.tensor([[0.9, 0.1]]) * (1 - right) ** 3 * right.log()
    assert torch.allclose(KINDS["occupancy"].loss(raw, truth), wanted, atol=1e-6)


def test_measures():
    one = torch.tensor([[True, True, False, False]])
    assert intersection_over_union(one, one.roll(1)).item() == pytest.approx(1 / 3)
    assert intersection_over_union(one & False, one & False).item() == 1
    cloud = torch.rand(1, 40, 3)
    assert chamfer(cloud, cloud).item() == 0
    assert chamfer(cloud, cloud + torch.tensor([0.0, 0.0, 5.0])).item() > 4


@pytest.mark.parametrize("options", [{"steps": 0}, {"points": -1}, {"plane_rate": 0.0}, {"look_every": 0}])
def test_a_fitting_that_is_none_is_refused(options):
    with pytest.raises(WeightgenError, match=next(iter(options))):
        Fitting(**options)


def test_another_kind_is_refused(samples):
    with pytest.raises(UnknownNameError, match="udf"):
        fit(CONFIG, "uds", samples, [0, 1], FITTING)
    with pytest.raises(WeightgenError, match="diverged"):
        fit(CONFIG, "sdf", samples, [0, 1], Fitting(20, 64, plane_rate=1e30, decoder_rate=1e30))
