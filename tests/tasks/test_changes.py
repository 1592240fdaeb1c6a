import numpy
import pytest
import torch

from weightgen.errors import UnknownNameError
from weightgen.tasks import get_task
from weightgen.tasks.changes import blurred, changed_task, rotated


def test_a_quarter_turn_moves_every_pixel():
    images = torch.rand(2, 1, 8, 8)
    images[..., 0, 0] = 0
    assert torch.allclose(rotated(images, 90).rot90(-1, (2, 3)), images, atol=1e-4) or torch.allclose(
        rotated(images, 90).rot90(1, (2, 3)), images, atol=1e-4
    )
    assert torch.allclose(rotated(images, 180).flip(2, 3), images, atol=1e-4)
    assert torch.allclose(rotated(images, 0), images, atol=1e-5)


def test_what_comes_in_is_paper():
    images = torch.full((3, 2, 9, 9), -0.4)
    assert torch.allclose(rotated(images, 45), images)


def test_blur_keeps_the_sum_and_spreads_a_point():
    image = torch.zeros(1, 1, 15, 15)
    image[..., 7, 7] = 1
    found = blurred(image, 1.5)
    assert found.sum().item() == pytest.approx(1, abs=1e-5)
    place = torch.arange(15.0) - 7
    assert (found[0, 0].sum(0) * place**2).sum().sqrt().item() == pytest.approx(1.5, rel=0.05)
    assert torch.equal(blurred(image, 0), image)


def test_a_changed_task_is_another_data_set():
    task = get_task("digits")
    turned = changed_task(task, {"rotation": 180.0})
    assert turned.digest != task.digest and turned.classes == task.classes
    images, labels = task.arrays["test"]
    assert numpy.array_equal(turned.arrays["test"][0], images[..., ::-1, ::-1])
    assert numpy.array_equal(turned.arrays["test"][1], labels)
    with pytest.raises(UnknownNameError, match="change of images 'tilt'.*rotation"):
        changed_task(task, {"tilt": 1.0})
