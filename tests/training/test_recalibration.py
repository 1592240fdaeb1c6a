import torch
from torch import nn

from weightgen.training.recalibration import has_statistics, recalibrate


def test_statistics_become_those_of_the_images_whatever_they_were():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)
    )
    module[1].running_mean += 100
    images = torch.randn(512, 2, 4, 4) * 3 + 1
    recalibrate(module, images)
    with torch.no_grad():
        first = module[0](images)
        second = module[3](module[1].eval()(first))
    assert not module.training and module[1].momentum == 0.1
    torch.testing.assert_close(module[1].running_mean, first.mean((0, 2, 3)), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(module[4].running_var, second.var((0, 2, 3)), rtol=0.02, atol=0.02)


def test_a_network_without_statistics_is_left_alone():
    module = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.BatchNorm1d(2, track_running_stats=False))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    recalibrate(module, torch.randn(8, 2))
    assert not has_statistics(module)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
