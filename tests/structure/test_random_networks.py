"""No group is ever wrong: networks put together at random from operators that split, join and reorder axes."""

from collections.abc import Callable, Sequence

import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from structure_networks import Example, all_permuted, all_rescaled, change, randomise
from torch import Tensor, nn
from torch.nn import functional

from weightgen.structure.tracing import trace_axes

WIDTH = 12
"""Every value is `[1, WIDTH]`; a step takes two of those made so far and makes one more."""


def _linear(network: nn.Module, name: str) -> Callable[[Tensor, Tensor], Tensor]:
    network.add_module(name, nn.Linear(WIDTH, WIDTH))
    return lambda one, other: functional.relu(getattr(network, name)(one))


def _affine(network: nn.Module, name: str) -> Callable[[Tensor, Tensor], Tensor]:
    network.register_parameter(name, nn.Parameter(torch.ones(WIDTH)))
    return lambda one, other: one * getattr(network, name)


def _block_scale(network: nn.Module, name: str) -> Callable[[Tensor, Tensor], Tensor]:
    network.register_parameter(name, nn.Parameter(torch.ones(3, 1)))
    return lambda one, other: (one.view(1, 3, 4) * getattr(network, name)).flatten(1)


def _inner_scale(network: nn.Module, name: str) -> Callable[[Tensor, Tensor], Tensor]:
    network.register_parameter(name, nn.Parameter(torch.ones(4)))
    return lambda one, other: (one.view(1, 3, 4) * getattr(network, name)).flatten(1)


def _grouped(network: nn.Module, name: str) -> Callable[[Tensor, Tensor], Tensor]:
    network.add_module(name, nn.Conv1d(WIDTH, WIDTH, 1, groups=3))
    return lambda one, other: getattr(network, name)(one[..., None])[..., 0].tanh()


def _mixing(network: nn.Module, name: str) -> Callable[[Tensor, Tensor], Tensor]:
    network.add_module(name, nn.Linear(4, 4))
    return lambda one, other: getattr(network, name)(one.view(1, 3, 4)).flatten(1)


def _plain(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[nn.Module, str], Callable[..., Tensor]]:
    return lambda network, name: function


def _attended(one: Tensor, other: Tensor) -> Tensor:
    query, key, value = one.view(1, 3, 2, 2), other.view(1, 3, 2, 2), (one + 1).view(1, 3, 2, 2)
    return functional.scaled_dot_product_attention(query, key, value).flatten(1)


def _multiplied(one: Tensor, other: Tensor) -> Tensor:
    return torch.einsum("bij,bjk->bik", one.view(1, 3, 4), other.view(1, 4, 3)[..., :1].expand(1, 4, 4)).flatten(1)


def _shared_keys(one: Tensor, other: Tensor) -> Tensor:
    query, key = one.view(1, 6, 1, 2), other[:, :6].reshape(1, 3, 1, 2)
    return functional.scaled_dot_product_attention(query, key, key, enable_gqa=True).flatten(1)


STEPS: Sequence[Callable[[nn.Module, str], Callable[..., Tensor]]] = (
    _linear,
    _linear,
    _affine,
    _block_scale,
    _inner_scale,
    _grouped,
    _mixing,
    *map(
        _plain,
        (
            lambda one, other: one + other,
            lambda one, other: one * other.sigmoid(),
            lambda one, other: torch.cat([one[:, :5], other[:, :7]], 1),
            lambda one, other: torch.cat([one[:, 6:], other[:, 6:]], 1),
            lambda one, other: torch.cat([one, other], 1)[:, 3:15],
            lambda one, other: torch.cat([one, other], 1)[:, ::2],
            lambda one, other: torch.stack([one, other], 2).flatten(1)[:, :WIDTH],
            lambda one, other: torch.stack([one[:, :6], other[:, :6]], 1).flatten(1),
            lambda one, other: one.flip(1),
            lambda one, other: one.roll(2, 1) + other,
            lambda one, other: one.view(1, 3, 4).transpose(1, 2).reshape(1, WIDTH),
            lambda one, other: one.view(1, 2, 6).transpose(1, 2).reshape(1, WIDTH),
            lambda one, other: one.view(1, 3, 4).softmax(2).flatten(1) + other,
            lambda one, other: one.view(1, 4, 3).softmax(1).flatten(1),
            lambda one, other: (one.view(1, 3, 4) * other.view(1, 3, 4).mean(2, keepdim=True)).flatten(1),
            lambda one, other: (one.view(1, 3, 4) + other.view(1, 3, 4).sum(1, keepdim=True)).flatten(1),
            lambda one, other: functional.pad(one[:, 2:10], (2, 2)) + other,
            lambda one, other: functional.pad(one[:, :8], (3, 1)),
            lambda one, other: one[:, :6].repeat_interleave(2, 1) * other,
            lambda one, other: one[:, :6].repeat(1, 2) + other,
            lambda one, other: functional.glu(torch.cat([one, other], 1), 1),
            lambda one, other: functional.group_norm(one, 3) + other,
            lambda one, other: functional.layer_norm(one, (WIDTH,)),
            _multiplied,
            lambda one, other: one.index_select(1, torch.tensor([0, 3, 1, 1, 2, 11, 10, 9, 8, 7, 6, 5])),
            lambda one, other: one.cumsum(1),
            _attended,
            _shared_keys,
        ),
    ),
)  # fmt: skip


class Network(nn.Module):
    """A linear layer, steps, and a linear layer over the last two values.

    Args:
        steps: for each the number of its kind and of the two values it takes, counted from the last.
    """

    def __init__(self, steps: Sequence[tuple[int, int, int]]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, WIDTH), nn.Linear(2 * WIDTH, 2)
        self.second = nn.Linear(3, WIDTH)
        self.steps = [
            (STEPS[kind % len(STEPS)](self, f"step{place}"), one, other)
            for place, (kind, one, other) in enumerate(steps)
        ]

    def forward(self, features: Tensor) -> Tensor:
        values = [self.first(features).relu(), self.second(features).tanh()]
        for step, one, other in self.steps:
            values.append(step(values[-1 - one % len(values)], values[-1 - other % len(values)]))
        return self.last(torch.cat(values[-2:], 1).tanh())


def relative_change(steps: Sequence[tuple[int, int, int]]) -> float:
    """How much the output of a random network changes when all its groups are permuted, rescaled and change sign."""
    torch.manual_seed(0)
    example = Example(Network(steps), (torch.randn(1, 3),))
    graph = trace_axes(example.module, example.arguments)
    randomise(example.module)
    return change(example, all_rescaled(all_permuted(example, graph), graph.groups))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.integers(0, len(STEPS) - 1), st.integers(0, 3), st.integers(0, 3)), max_size=7))
@example([(24, 0, 2), (20, 0, 2), (6, 3, 3)])  # Padding differs from block to block after a softmax over blocks.
@example(
    [(30, 2, 0), (27, 2, 3), (29, 0, 1), (9, 1, 0), (23, 3, 3), (9, 2, 0), (17, 1, 2)]
)  # Equal, then merged, then not.
@example([(22, 2, 3), (29, 1, 1), (24, 1, 2), (3, 2, 1), (14, 1, 3), (5, 2, 1)])  # Padding met what it is padding of.
def test_permuted_groups_leave_the_output_of_random_networks(steps):
    assert relative_change(steps) <= 1e-10
