"""The last layer of a hypernetwork: features → the change h of every parameter, in full, by chunks or of low rank.

Notation: f `[…, features]` is what the hypernetwork's body makes of a condition, h_t `[…, *shape]` the change of the
tensor t. A new head gives h = 0 at every condition.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

Shapes = Mapping[str, tuple[int, ...]]


class FullHead(nn.Module):
    """h = W f: a row of W for each value, `features` times as many parameters as the tensors have values."""

    def __init__(self, shapes: Shapes, features: int) -> None:
        super().__init__()
        self.shapes = dict(shapes)
        self.weight = nn.Parameter(torch.zeros(sum(map(math.prod, self.shapes.values())), features))

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        return _split(nn.functional.linear(features, self.weight), self.shapes)

    @torch.no_grad()
    def start_published(self) -> None:
        """The initial values of the reference code: each tensor's rows kaiming normal by fan-out, vectors zero."""
        for (_, shape), rows in zip(
            self.shapes.items(), self.weight.split([*map(math.prod, self.shapes.values())]), strict=True
        ):
            if len(shape) > 1:
                nn.init.kaiming_normal_(rows, nonlinearity="leaky_relu", mode="fan_out")


class ChunkedHead(nn.Module):
    """h in chunks of equal size that share one map: chunk j is U φ(A f + e_j), with e_j learned.

    After "Continual learning with hypernetworks", https://arxiv.org/abs/1906.00695. It has about
    `features` × (chunk + chunks) parameters.
    """

    def __init__(self, shapes: Shapes, features: int, chunk: int) -> None:
        super().__init__()
        self.shapes = dict(shapes)
        self.total = sum(map(math.prod, self.shapes.values()))
        self.chunks = nn.Parameter(torch.randn(-(-self.total // chunk), features))
        self.mix = nn.Parameter(torch.randn(features, features))
        self.weight = nn.Parameter(torch.zeros(chunk, features))

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        mixed = nn.functional.linear(features, self.mix).unsqueeze(-2) + self.chunks  # […, chunks, features]
        # Divided so that its norm is about 1, as that of f is.
        hidden = nn.functional.leaky_relu(mixed) / math.sqrt(features.shape[-1])
        flat = nn.functional.linear(hidden, self.weight).flatten(-2)
        return _split(flat[..., : self.total], self.shapes)


class LowRankHead(nn.Module):
    """h_t = U_t diag(m_t) V_t with U_t `[out, rank]`, V_t `[rank, in]` learned and m_t = M_t f; vectors in full.

    After "LoRA", https://arxiv.org/abs/2106.09685, whose change it makes depend on the condition.
    """

    def __init__(self, shapes: Shapes, features: int, rank: int) -> None:
        super().__init__()
        self.matrices = {name: shape for name, shape in shapes.items() if _ranked(shape, rank)}
        self.order = list(shapes)
        ranks = {name: (rank,) for name in self.matrices}
        rest = {name: shape for name, shape in shapes.items() if name not in self.matrices}
        self.full = FullHead(rest, features)
        self.mixing = FullHead(ranks, features)
        nn.init.normal_(self.mixing.weight)
        self.left, self.right = nn.ParameterDict(), nn.ParameterDict()
        for name, shape in self.matrices.items():
            # A dot cannot stand in the name of a parameter.
            key = name.replace(".", "/")
            self.left[key] = nn.Parameter(torch.randn(shape[0], rank) / math.sqrt(rank))
            self.right[key] = nn.Parameter(torch.zeros(rank, math.prod(shape[1:])))

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        found = self.full(features)
        for name, mixing in self.mixing(features).items():
            key = name.replace(".", "/")
            change = (self.left[key] * mixing.unsqueeze(-2)) @ self.right[key]  # […, out, in]
            found[name] = change.unflatten(-1, self.matrices[name][1:])
        return {name: found[name] for name in self.order}


def _ranked(shape: tuple[int, ...], rank: int) -> bool:
    """Whether two factors are smaller than the tensor."""
    return len(shape) > 1 and rank * (shape[0] + math.prod(shape[1:])) < math.prod(shape)


def _split(flat: Tensor, shapes: Shapes) -> dict[str, Tensor]:
    parts = flat.split([*map(math.prod, shapes.values())], dim=-1)
    return {
        name: part.unflatten(-1, shape) if shape else part.squeeze(-1)
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }
