"""Real architectures wrap, run forward and backward, and compile."""

import pytest
import timm
import torch
import torchvision

from weightgen.generators.conditions import Scalar
from weightgen.generators.hypernetwork import hypernetwork

SMALL_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
ARCHITECTURES = {
    "resnet18": lambda: timm.create_model("resnet18", num_classes=5),
    "resnet26d": lambda: timm.create_model("test_resnet", num_classes=5),
    "efficientnet": lambda: timm.create_model("test_efficientnet", num_classes=5),
    "vit": lambda: timm.create_model("vit_tiny_patch16_224", num_classes=5, **SMALL_VIT),
    "convnext": lambda: timm.create_model("convnext_atto", num_classes=5, depths=(1, 1, 1, 1), dims=(8, 8, 8, 8)),
    "mobilenetv3": lambda: timm.create_model("mobilenetv3_small_050", num_classes=5),
    "repvgg": lambda: timm.create_model("test_byobnet", num_classes=5),
    "regnet": lambda: timm.create_model("regnetx_002", num_classes=5),
    "densenet": lambda: torchvision.models.DenseNet(4, (2, 2), 8, num_classes=5),
    "squeezenet": lambda: torchvision.models.squeezenet1_1(num_classes=5),
    "shufflenet": lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=5),
    "swin": lambda: timm.create_model(
        "swin_tiny_patch4_window7_224", num_classes=5, img_size=32, window_size=4, embed_dim=12, depths=(1, 1),
        num_heads=(1, 2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_wraps_and_runs_forward_and_backward(name):
    torch.manual_seed(0)
    hyper = hypernetwork(ARCHITECTURES[name](), Scalar(0, 180), hidden=(8, 8), rank=2)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for parameter in hyper.head.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    answer = hyper(45.0, images)
    assert answer.shape == (2, 5)
    answer.square().sum().backward()
    assert [name for name, one in hyper.named_parameters() if one.grad is None or not one.grad.isfinite().all()] == []
    hyper.eval()
    with torch.no_grad():
        each, all_of_them = hyper([45.0, 135.0], images), hyper([45.0, 135.0], images, grid=True)
        assert torch.allclose(each[1], all_of_them[1, 1], atol=1e-4)
        assert torch.allclose(all_of_them[0], hyper(45.0, images), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_compiled_it_says_the_same(name):
    torch._dynamo.reset()  # which compiles one piece of code for eight modules at most
    torch.manual_seed(0)
    hyper = hypernetwork(ARCHITECTURES[name](), Scalar(0, 180), hidden=(8, 8), rank=2).eval()
    compiled = torch.compile(hyper, backend="aot_eager", fullgraph=True)
    images, angle = torch.randn(2, 3, 32, 32), torch.tensor(45.0)
    answer = compiled(angle, images)
    assert torch.allclose(answer, hyper(angle, images), atol=1e-4)
    answer.sum().backward()
    assert hyper.head.left[next(iter(hyper.head.left))].grad is not None


@pytest.mark.slow
def test_compiled_conditions_of_a_batch():
    hyper = hypernetwork("weightgen/cnn?channels=4", Scalar(0, 180), hidden=(8, 8))
    compiled = torch.compile(hyper, backend="aot_eager", fullgraph=True)
    images, angles = torch.randn(2, 1, 8, 8), torch.tensor([10.0, 20.0])
    assert torch.allclose(compiled(angles, images), hyper(angles, images), atol=1e-4)
    assert compiled(angles + 190, images).isnan().all(), "compiled code cannot raise, but says nothing false"


def test_a_resnet18_of_low_rank_is_small():
    hyper = hypernetwork("timm/resnet18", Scalar(0, 180), rank=8)
    network = sum(parameter.numel() for parameter in hyper.network.parameters())
    assert network > 11e6 and sum(parameter.numel() for parameter in hyper.parameters()) < 1.3 * network
