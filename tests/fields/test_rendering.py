import pytest
import torch
from PIL import Image

from weightgen.errors import WeightgenError
from weightgen.fields.fitting import Fitting
from weightgen.fields.radiance import Views, around, fit_radiance, look, psnr, rays, render_radiance
from weightgen.fields.rendering import contact_sheet, shade, view, write_png
from weightgen.fields.shapes import make_shapes
from weightgen.fields.triplane import TriPlaneConfig

CONFIG = TriPlaneConfig(12, 4, (16,), 4, decoder="relu", frequencies=1)


def ball(points):
    return points.norm(dim=-1) - 0.5


def test_a_ball_is_a_disc_lit_from_above():
    image = shade(ball, 1, 64, view(20, 10))[0]
    drawn = (image < 0.99).any(-1)
    assert drawn.float().mean().item() == pytest.approx(3.14159 * 0.25 / 4, rel=0.05)
    assert drawn[32, 32] and not drawn[2, 2]
    assert image[22, 32].sum() > image[42, 32].sum(), "its upper half is brighter"


def test_frames_are_turns():
    frame = view(35, 25)
    assert torch.allclose(frame @ frame.T, torch.eye(3), atol=1e-6)
    assert torch.linalg.det(frame).item() == pytest.approx(1)


def test_a_sheet_holds_all_pictures(tmp_path):
    images = torch.rand(5, 4, 6, 3)
    sheet = contact_sheet(images, 2)
    assert sheet.shape == (12, 12, 3)
    assert torch.equal(sheet[4:8, :6], images[2]) and (sheet[8:, 6:] == 1).all()
    write_png(tmp_path / "sheet.png", sheet)
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.size == (12, 12)


def test_rays_go_through_the_middle():
    poses = around(3, torch.Generator().manual_seed(0))
    origins, directions = rays(poses, 5, 5, 50)
    assert torch.allclose(directions.norm(dim=-1), torch.ones(3, 25))
    middle = origins[:, 12] + directions[:, 12] * origins[:, 12].norm(dim=-1, keepdim=True)
    assert middle.abs().max() < 1e-5


def test_a_scene_is_learned_from_its_views():
    shapes = make_shapes(2, 1)
    views, held = look(shapes, 6, 12, 0), look(shapes, 1, 12, 1)
    assert (views.images == 1).all(-1).any() and (views.images < 0.9).any()
    short, long = (
        fit_radiance(CONFIG, views, held, [0, 1], Fitting(steps, 64, 2e-2, 5e-3), samples=12) for steps in (1, 50)
    )
    assert (long.figures["psnr"] > short.figures["psnr"] + 1).all()
    picture = render_radiance(CONFIG, long.tensors, held.poses, 12)
    assert torch.allclose(psnr(picture, held.images), long.figures["psnr"], atol=1e-4)


def test_images_without_poses_are_refused():
    images, poses = torch.rand(1, 2, 4, 4, 3), torch.eye(4).repeat(1, 2, 1, 1)
    Views(images, poses)
    for wrong, words in ((None, "no poses"), (poses[:, :1], "poses"), (poses[..., :3, :], "poses")):
        with pytest.raises(WeightgenError, match=f"needs the pose.*{words}"):
            Views(images, wrong)
    with pytest.raises(WeightgenError, match="not images"):
        Views(images[0], poses)
    with pytest.raises(WeightgenError, match="not finite"):
        Views(images * float("nan"), poses)
    with pytest.raises(WeightgenError, match="density and colour"):
        views = Views(images, poses)
        fit_radiance(TriPlaneConfig(12, 4, (16,)), views, views, [0], Fitting(1, 4))
