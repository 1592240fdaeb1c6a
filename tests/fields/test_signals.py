import numpy
import pytest
import torch
import trimesh

from weightgen.errors import CorruptFileError, MissingDataError, WeightgenError
from weightgen.fields.clouds import Cloud, Voxels
from weightgen.fields.meshes import Mesh
from weightgen.fields.signals import Sampling, sample
from weightgen.fields.sources import find_sources, read_signal


def anywhere(count):
    return 2 * torch.rand(count, 3, generator=torch.Generator().manual_seed(0)) - 1


def ball(points, radius=0.9):
    return points.norm(dim=-1) - radius


def test_a_cloud_knows_its_nearest_point():
    points = numpy.random.default_rng(0).normal(size=(50, 3)) * 7 + 3
    cloud = Cloud(points)
    asked = anywhere(20)
    pairs = torch.cdist(asked, torch.from_numpy(cloud.points)).amin(1)
    assert torch.allclose(cloud.distance(asked), pairs, atol=1e-5)
    assert numpy.linalg.norm(cloud.points, axis=1).max() == pytest.approx(0.9, abs=1e-5)
    assert numpy.allclose(cloud.points / cloud.scale + cloud.centre, points, atol=1e-4)


@pytest.mark.parametrize("solid", [True, False])
def test_a_mesh_knows_distance_and_inside(solid):
    sphere = trimesh.creation.icosphere(subdivisions=3, radius=5.0)
    mesh = Mesh(sphere.vertices + 4, sphere.faces, solid)
    points = anywhere(400)
    wanted = ball(points) if solid else ball(points).abs()
    assert (mesh.distance(points) - wanted).abs().max() < 0.01
    turned = Mesh(sphere.vertices, sphere.faces[:, ::-1], True)
    assert (turned.distance(points) - ball(points)).abs().max() < 0.01, "faces that look inwards change nothing"


def test_a_mesh_with_a_small_hole_still_has_an_inside():
    sphere = trimesh.creation.icosphere(subdivisions=3)
    mesh = Mesh(sphere.vertices, sphere.faces[8:], True)
    points = anywhere(300)
    assert ((mesh.distance(points) < 0) == (ball(points) < 0)).float().mean() > 0.97


def test_an_open_mesh_has_none():
    sheet = trimesh.creation.icosphere(subdivisions=3)
    above = sheet.faces[(sheet.vertices[sheet.faces][:, :, 2] > 0).all(1)]
    with pytest.raises(WeightgenError, match="has no inside.*--kind udf"):
        Mesh(sheet.vertices, above, True)
    assert Mesh(sheet.vertices, above, False).distance(anywhere(3)).shape == (3,)


@pytest.mark.parametrize(
    ("vertices", "faces", "words"),
    [
        (numpy.zeros((0, 3)), numpy.zeros((0, 3), int), "no triangles"),
        (numpy.eye(3), numpy.zeros((0, 3), int), "no triangles"),
        (numpy.ones((3, 3)), [[0, 1, 2]], "no extent"),
        (numpy.arange(9.0).reshape(3, 3), [[0, 1, 2]], "degenerate"),
        (numpy.array([[0, 0, 0], [1, 0, 0], [0, numpy.nan, 0]]), [[0, 1, 2]], "not finite; .*1 of 3"),
        (numpy.eye(3), [[0, 1, 7]], "not there"),
    ],
)
def test_meshes_that_are_none_are_refused(vertices, faces, words):
    words = words.replace("; .*", ".*")
    with pytest.raises(WeightgenError, match=words):
        Mesh(vertices, numpy.array(faces), False, "broken.obj")


def test_voxels_know_distance_and_inside():
    line = numpy.linspace(-1, 1, 32)
    filled = numpy.linalg.norm(numpy.stack(numpy.meshgrid(line, line, line, indexing="ij")), axis=0) < 0.8
    voxels, points = Voxels(filled), anywhere(500)
    # What is brought in are the corners of cubes, which stand out of the ball.
    found, wanted = voxels.distance(points), ball(points, 0.8 * 15.5 * voxels.scale)
    assert (found - wanted).abs().mean() < 0.02
    assert ((found < 0) == (wanted < 0)).float().mean() > 0.95


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (numpy.zeros((0, 3)), "no points"),
        (numpy.zeros((1, 3)), "no extent.*1 in one place"),
        (numpy.full((9, 3), 5.0), "no extent"),
        (numpy.array([[0, 0, 0], [1, numpy.nan, 0]]), "1 of 2"),
        (numpy.array([[0, 0, 0], [1, numpy.inf, 0]]), "1 of 2"),
        (numpy.zeros((4, 2)), r"\[n, 3\]"),
    ],
)
def test_clouds_that_are_none_are_refused(points, words):
    with pytest.raises(WeightgenError, match=words):
        Cloud(points, "broken.npy")


@pytest.mark.parametrize("filled", [numpy.zeros((3, 3, 3)), numpy.full((3, 3, 3), 0.5), numpy.ones((3, 3))])
def test_voxels_that_are_none_are_refused(filled):
    with pytest.raises(WeightgenError, match="voxel"):
        Voxels(filled)


def test_samples_are_the_same_for_the_same_seed():
    signals = [Cloud(numpy.random.default_rng(seed).normal(size=(20, 3))) for seed in (0, 1)]
    sampling = Sampling(points=100, probes=10)
    one, again = sample(signals, [3, 4], sampling), sample(signals[1:], [4], sampling)
    assert one.points.shape == (2, 100, 3) and one.truths.shape == (2, 10)
    assert torch.equal(one.points[1], again.points[0]) and torch.equal(one.distances[1], again.distances[0])
    assert one.points.abs().max() <= 1


def test_folders_say_class_and_split(tmp_path):
    box = trimesh.creation.box()
    for place in ("chair/train/a.obj", "chair/test/b.off", "desk/train/c.ply", "desk/test/d.stl"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        box.export(tmp_path / place)
    numpy.save(tmp_path / "desk/train/e.npy", numpy.random.default_rng(0).normal(size=(9, 3)))
    numpy.savetxt(tmp_path / "desk/train/f.xyz", numpy.random.default_rng(0).normal(size=(9, 3)))
    trimesh.PointCloud(numpy.random.default_rng(0).normal(size=(9, 3))).export(tmp_path / "desk/train/g.ply")
    (tmp_path / "desk/readme.txt").write_text("no signal")
    found = find_sources([tmp_path], False)
    assert [(one.name, one.label, one.split) for one in found][:3] == [
        ("chair/test/b", "chair", "test"), ("chair/train/a", "chair", "train"), ("desk/test/d", "desk", "test")
    ]  # fmt: skip
    assert len(found) == 7
    assert [one.read().solid for one in found] == [False] * 7
    assert find_sources([tmp_path], True)[0].read().solid


def test_a_file_of_many_clouds(tmp_path):
    points = numpy.random.default_rng(0).normal(size=(3, 9, 3)).astype("float16")
    numpy.savez(
        tmp_path / "many.npz", train_points=points, train_labels=[0, 1, 1], test_points=points[:1], test_labels=[1],
        classes=["bed", "desk"],
    )  # fmt: skip
    found = find_sources([tmp_path / "many.npz"], False)
    assert [(one.label, one.split) for one in found] == [
        ("bed", "train"), ("desk", "train"), ("desk", "train"), ("desk", "test")
    ]  # fmt: skip
    assert found[2].read().points.shape == (9, 3)


def test_what_is_no_source_is_refused(tmp_path):
    with pytest.raises(MissingDataError, match="nothing is there"):
        find_sources([tmp_path / "nowhere"], False)
    with pytest.raises(MissingDataError, match=r"\.obj"):
        find_sources([tmp_path], False)
    (tmp_path / "broken.obj").write_text("f 1 2 nothing\n")
    (tmp_path / "broken.npy").write_bytes(b"nothing")
    (tmp_path / "broken.xyz").write_text("a b c\n")
    for name in ("broken.npy", "broken.xyz"):
        with pytest.raises(CorruptFileError, match=name):
            read_signal(tmp_path / name, False)
    with pytest.raises(WeightgenError, match=r"broken\.obj"):
        read_signal(tmp_path / "broken.obj", False)
    numpy.save(tmp_path / "cloud.npy", numpy.random.default_rng(0).normal(size=(9, 3)))
    with pytest.raises(WeightgenError, match="no inside.*--kind udf"):
        read_signal(tmp_path / "cloud.npy", True)
