"""T1: the inner width of ResNet-20's last block, all before it frozen, its features computed once."""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from weightgen.architecture import Architecture
from weightgen.checkpoint import Checkpoint
from weightgen.generators.implicit import Sizes
from weightgen.structure.axes import AxisGraph, AxisGroup, Member
from weightgen.tasks import Task

BATCH = 500
IMAGES = {"train": 15_000, "validation": 2_500, "test": None}
"""Of so many images of each split features are computed, of all if none is given."""
NAMES = {"block": "layer3.2", "linear": "linear"}
"""Names of the parts as they are here → as they are in the network."""


@dataclass(frozen=True)
class LastBlock:
    """The last block and what follows it.

    Args:
        tensors: name → tensor.
        graph: its one group, the channels between its two convolutions.
        features: split → what the frozen part makes of its images, bfloat16 `[n, 64, 8, 8]`, and labels.
        before: how many parameters the frozen part has.
    """

    tensors: dict[str, Tensor]
    graph: AxisGraph
    features: dict[str, tuple[Tensor, Tensor]]
    before: int

    @classmethod
    def of(cls, checkpoint: Checkpoint, task: Task) -> "LastBlock":
        """That of a ResNet-20, with the features of all images of a task."""
        network = checkpoint.build()
        whole = checkpoint.state_dict()
        tensors = {
            name.replace(there, here, 1): tensor
            for here, there in NAMES.items() for name, tensor in whole.items() if name.startswith(there)
        }  # fmt: skip
        group = next(
            group for group in checkpoint.architecture.axes().groups
            if any((member.tensor, member.axis) == ("layer3.2.conv1.weight", 0) for member in group.members)
        )  # fmt: skip
        members = tuple(Member(member.tensor.replace("layer3.2", "block"), member.axis) for member in group.members)
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        graph = AxisGraph((AxisGroup(group.size, members),), {}, shapes)
        first = nn.Sequential(
            OrderedDict(
                conv1=network.conv1, bn1=network.bn1, relu=nn.ReLU(), layer1=network.layer1, layer2=network.layer2,
                layer3=network.layer3[:2],
            )
        )  # fmt: skip
        features = {}
        for split, most in IMAGES.items():
            images, labels = (part[:most] for part in task.split(split))
            features[split] = _run(first, images), labels
        return cls(tensors, graph, features, sum(parameter.numel() for parameter in first.parameters()))

    @staticmethod
    def network(sizes: Sizes) -> nn.Module:
        """A fresh last block of this inner width, with what follows it."""
        with torch.random.fork_rng(devices=[]):
            inner = (16,) * 3 + (32,) * 3 + (64, 64, sizes[0])
            network = Architecture.of("weightgen/resnet", inner=inner).build()
        block, linear = network.layer3[2], network.linear
        return nn.Sequential(
            OrderedDict(block=block, average=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), linear=linear)
        )


@torch.no_grad()
def _run(network: nn.Module, images: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return torch.cat([network(part).bfloat16() for part in images.split(BATCH)])
