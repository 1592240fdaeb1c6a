import pytest
import torch
from torch import nn

from weightgen.errors import MissingDataError
from weightgen.training.recalibration import has_statistics, recalibrate


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.ReLU(), nn.Conv2d(4, 2, 3)).eval()


def test_statistics_are_those_of_the_images():
    module, images = network(), torch.randn(40, 1, 8, 8)
    assert recalibrate(module, images, batch=40) == ["1"]
    seen = module[0](images)
    torch.testing.assert_close(module[1].running_mean, seen.mean((0, 2, 3)))
    torch.testing.assert_close(module[1].running_var, seen.var((0, 2, 3)))


def test_batches_weigh_the_same_and_a_last_part_is_left_out():
    module, images = network(), torch.randn(25, 1, 8, 8)
    recalibrate(module, images, batch=10)
    torch.testing.assert_close(module[1].running_mean, module[0](images[:20]).mean((0, 2, 3)))
    assert module[1].num_batches_tracked == 2
    recalibrate(module, images, batch=100)
    torch.testing.assert_close(module[1].running_mean, module[0](images).mean((0, 2, 3)))


def test_scaled_weights_work_again():
    module, images = network(), torch.randn(64, 1, 8, 8)
    recalibrate(module, images)
    before = module(images)
    with torch.no_grad():
        module[0].weight.mul_(3)
    assert not torch.allclose(module(images), before, atol=0.1)
    recalibrate(module, images)
    torch.testing.assert_close(module(images), before, rtol=1e-3, atol=1e-3)


def test_nothing_else_changes_and_the_same_images_give_the_same():
    module, images = network(), torch.randn(20, 1, 8, 8)
    module[1].train()
    momentum = module[1].momentum
    parameters = [parameter.clone() for parameter in module.parameters()]
    recalibrate(module, images)
    first = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    recalibrate(module, images)
    assert all(torch.equal(tensor, first[name]) for name, tensor in module.state_dict().items())
    assert all(torch.equal(*pair) for pair in zip(module.parameters(), parameters, strict=True))
    assert [part.training for part in module] == [False, True, False, False, False]
    assert module[1].momentum == momentum


def test_a_failure_leaves_the_modes_as_they_were():
    module = network()
    with pytest.raises(RuntimeError):
        recalibrate(module, torch.randn(4, 3, 8, 8))
    assert not any(part.training for part in module.modules()) and module[1].momentum == 0.1


def test_without_norms_and_without_images():
    plain = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, track_running_stats=False))
    assert not has_statistics(plain) and has_statistics(network())
    assert recalibrate(plain, torch.randn(4, 3)) == []
    with pytest.raises(MissingDataError, match="no images"):
        recalibrate(network(), torch.empty(0, 1, 8, 8))


def test_with_the_original_statistics_move_by_what_the_change_does():
    original, images = network(), torch.randn(64, 1, 8, 8)
    original[1].running_mean.copy_(torch.tensor([1.0, -2.0, 0.5, 3.0]))
    original[1].running_var.copy_(torch.tensor([2.0, 0.3, 1.0, 5.0]))
    state = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    same = network()
    same.load_state_dict(state)
    assert recalibrate(same, images, original=original) == ["1"]
    torch.testing.assert_close(same[1].running_mean, original[1].running_mean)
    torch.testing.assert_close(same[1].running_var, original[1].running_var)

    tripled = network()
    tripled.load_state_dict(state)
    with torch.no_grad():
        tripled[0].weight.mul_(3)
        tripled[0].bias.mul_(3)
    recalibrate(tripled, images, original=original)
    moved = original[1].running_mean + 2 * original[0](images).mean((0, 2, 3))
    torch.testing.assert_close(tripled[1].running_mean, moved, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tripled[1].running_var, 9 * original[1].running_var, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(tensor, state[name]) for name, tensor in original.state_dict().items())
