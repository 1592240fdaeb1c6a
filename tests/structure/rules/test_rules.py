"""Operators one by one: between two layers each leaves the channels free, or holds them; no group is ever wrong."""

from collections.abc import Callable

import pytest
import torch
from structure_networks import Example, all_permuted, change, randomise
from torch import Tensor, nn
from torch.nn import functional

from weightgen.structure.tracing import trace_axes

CHANNELS, SIDE = 8, 4
FREE: dict[str, Callable[[Tensor], Tensor]] = {
    "adaptive_max_pool": lambda x: functional.adaptive_max_pool2d(x, 2),
    "amax": lambda x: x.amax(2),
    "argmax of places": lambda x: x + x.argmax(2, keepdim=True).float(),
    "avg_pool": lambda x: functional.avg_pool2d(x, 2),
    "baddbmm": lambda x: torch.baddbmm(x[0], x[0], x[0])[None],
    "bmm": lambda x: torch.bmm(x[0], x[0].transpose(1, 2))[None],
    "channel_shuffle": lambda x: functional.channel_shuffle(x, 2),
    "chunk": lambda x: torch.cat([part * 2 for part in x.chunk(3, 2)], 2),
    "clamp": lambda x: x.clamp(-1, 1),
    "constant padding": lambda x: functional.pad(x, (1, 2)),
    "cumsum of places": lambda x: x.cumsum(2),
    "dropout": lambda x: functional.dropout(x, 0.5, training=False),
    "einsum with batch": lambda x: torch.einsum("...ij,...kj->...ik", x, x),
    "einsum without output": lambda x: torch.einsum("bcij,bcij", x, x).reshape(1, 1) * x,
    "elu": functional.elu,
    "expand": lambda x: x.mean(3, keepdim=True).expand(1, CHANNELS, SIDE, SIDE),
    "fold": lambda x: functional.fold(functional.unfold(x, 2), (SIDE, SIDE), 2),
    "fill": lambda x: x + torch.full_like(x, 0.3),
    "flip": lambda x: x.flip(1, 2),
    "gather of places": lambda x: x.gather(3, torch.zeros(1, CHANNELS, SIDE, 2, dtype=torch.int64)),
    "hardtanh_": lambda x: functional.hardtanh(x, inplace=True),
    "im2col": lambda x: functional.unfold(x, 2),
    "index of places": lambda x: x[:, :, torch.tensor([0, 2]), torch.tensor([1, 3])],
    "index_select of places": lambda x: x.index_select(2, torch.tensor([3, 0])),
    "instance_norm": lambda x: functional.instance_norm(x),
    "interpolate": lambda x: functional.interpolate(x, scale_factor=2, mode="bilinear"),
    "logsumexp": lambda x: x.logsumexp(1),
    "masked_fill": lambda x: x.masked_fill(torch.eye(SIDE, dtype=torch.bool), 0.5),
    "matmul with a vector": lambda x: x @ torch.ones(SIDE),
    "max of channels": lambda x: x.max(1).values,
    "max_pool1d": lambda x: functional.max_pool1d(x.flatten(2), 2),
    "max_pool with indices": lambda x: functional.max_pool2d(x, 2, return_indices=True)[0],
    "mean": lambda x: x.mean(),
    "movedim": lambda x: x.movedim(1, 3) * 2,
    "mT": lambda x: x.mT,
    "narrow": lambda x: x.narrow(2, 1, 2),
    "normalize": lambda x: functional.normalize(x, dim=1),
    "pixel_unshuffle": lambda x: functional.pixel_unshuffle(x, 2),
    "reflection": lambda x: functional.pad(x, (1, 1, 0, 1), mode="reflect"),
    "repeat": lambda x: x.repeat(1, 2, 1, 1),
    "repeat_interleave": lambda x: x.repeat_interleave(3, 1),
    "roll": lambda x: x.roll((1, 2), (1, 2)),
    "select": lambda x: x[:, :, -1],
    "slice": lambda x: x[:, :, ::2],
    "softmax of channels": lambda x: x.softmax(1),
    "sort of places": lambda x: x.sort(3).values,
    "split": lambda x: torch.stack([part.mean(2) for part in x.split([1, 3], 2)], 1),
    "squeeze": lambda x: x.mean(2, keepdim=True).squeeze(2),
    "std": lambda x: torch.var_mean(x, (2, 3))[0],
    "swapaxes": lambda x: x.swapaxes(1, 3) + 1,
    "tile": lambda x: x.tile(2, 1, 1, 2)[:1],
    "tril of places": lambda x: x.tril(),
    "unbind": lambda x: x.unbind(2)[0] * x.unbind(2)[1],
    "unflatten": lambda x: x.flatten(2).unflatten(2, (2, -1)),
    "unfold": lambda x: x.unfold(2, 2, 1),
    "where": lambda x: torch.where(x > 0, x, 0.1),
    "written rows": lambda x: _written(x),
    "zeros_like": lambda x: torch.cat([x, torch.zeros_like(x)], 1),
}
"""The channels stay free."""

HELD: dict[str, Callable[[Tensor], Tensor]] = {
    "argmax of channels": lambda x: x + x.argmax(1, keepdim=True).float(),
    "argsort": lambda x: x.argsort(1).float() + x,
    "conv over channels": lambda x: functional.conv1d(x.flatten(2).mT, torch.ones(1, SIDE**2, 3), padding=1),
    "cumsum": lambda x: x.cumsum(1),
    "gather": lambda x: x.gather(1, torch.arange(CHANNELS).flip(0).view(1, -1, 1, 1)),
    "index": lambda x: x[:, torch.arange(CHANNELS).flip(0)],
    "max with numbers": lambda x: x.max(1, keepdim=True).indices * x,
    "each with each": lambda x: torch.inner(x[0, :, 0], x[0, :, 1])[None],
    "outer": lambda x: torch.outer(x[0, :, 0, 0], x[0, :, 1, 1])[None],
    "diagonal": lambda x: torch.einsum("bcc->bc", x.mean(3) @ x.mean(2).mT),
    "positions": lambda x: x * torch.arange(CHANNELS).view(1, -1, 1, 1),
    "sort": lambda x: x.sort(1).values * torch.arange(CHANNELS).view(1, -1, 1, 1),
    "topk": lambda x: x.topk(3, 1).values,
    "tril": lambda x: x.movedim(1, 3).tril(),
    "unknown": lambda x: torch.fft.fft(x, dim=1).real,
}
"""The channels cannot be permuted."""


def _written(x: Tensor) -> Tensor:
    rows = torch.zeros(1, CHANNELS + 2, SIDE, SIDE)
    rows[:, 1:-1] = x
    return rows


class Between(nn.Module):
    """A convolution, a function, and a linear layer over all that the function gives."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, CHANNELS, 1)
        self.function = function
        self.last = nn.Linear(function(torch.randn(1, CHANNELS, SIDE, SIDE)).numel(), 3)

    def forward(self, image: Tensor) -> Tensor:
        return self.last(self.function(self.first(image)).reshape(1, -1))


def traced(function: Callable[[Tensor], Tensor]):
    torch.manual_seed(0)
    example = Example(Between(function), (torch.randn(1, 2, SIDE, SIDE),))
    graph = trace_axes(example.module, example.arguments)
    randomise(example.module)
    assert change(example, all_permuted(example, graph)) <= 1e-10
    return [group for group in graph.groups if group.members[0].tensor == "first.weight"], graph


@pytest.mark.parametrize("name", FREE)
def test_channels_stay_free(name):
    groups, _ = traced(FREE[name])
    assert [group.size for group in groups] == [CHANNELS]


@pytest.mark.parametrize("name", HELD)
def test_channels_are_held(name):
    groups, graph = traced(HELD[name])
    assert groups == [] and graph.frozen["first.weight", 0]
