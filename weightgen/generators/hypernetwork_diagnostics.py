"""Whether a hypernetwork will train: the size of what it writes, and of its gradients, against the condition.

After "Magnitude Invariant Parametrizations Improve Hypernetwork Learning", https://arxiv.org/abs/2304.07645, section 3:
in the plain form the size of h(z) is proportional to |z|, and so are the gradients of everything before the head.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from weightgen.errors import WeightgenError
from weightgen.generators.hypernetwork import Hypernetwork
from weightgen.generators.hypernetwork_training import ends

PROPORTIONAL = 0.5
"""From this slope of log size against log |z| on, a warning is given; 0 is invariance, 1 proportionality."""


@dataclass(frozen=True)
class Diagnosis:
    """What was measured at conditions from one end of the ranges to the other.

    Args:
        norms: |z| of each condition.
        features: root mean square of what the head reads, at each.
        weights: root mean square of the matrices written, each over its mean over all conditions, at each.
        gradients: norm of the gradient of all parameters, at each; None if no loss was given.
    """

    norms: list[float]
    features: list[float]
    weights: list[float]
    gradients: list[float] | None

    @property
    def slope(self) -> float:
        """Of log features against log |z|, over conditions that are not 0: 0 is invariant, 1 proportional."""
        pairs = [
            (math.log(z), math.log(size))
            for z, size in zip(self.norms, self.features, strict=True)
            if z > 1e-6 and size > 0
        ]
        x, y = (torch.tensor(values, dtype=torch.float64) for values in zip(*pairs, strict=True))
        x, y = x - x.mean(), y - y.mean()
        return float((x * y).sum() / (x * x).sum())

    @property
    def gradient_variation(self) -> float | None:
        """Standard deviation of the gradient's norm over conditions, over its mean."""
        if self.gradients is None:
            return None
        norms = torch.tensor(self.gradients, dtype=torch.float64)
        return float(norms.std(correction=0) / norms.mean())

    def plot(self, path: Path | str) -> None:
        """Draws sizes and gradients against |z|."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        curves = {"features": self.features, "weights": self.weights}
        curves |= {"gradient": self.gradients} if self.gradients is not None else {}
        figure = Figure(figsize=(4.2 * len(curves), 3.4))
        for axis, (name, values) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
            axis.plot(self.norms, values, marker=".")
            axis.set_ylim(bottom=0)
            axis.set_xlabel("|z|")
            axis.set_title(name, fontsize=10)
        figure.suptitle(f"slope of log features against log |z|: {self.slope:.2f}", fontsize=10)
        figure.tight_layout()
        FigureCanvasAgg(figure).print_png(str(path))


def diagnose(hyper: Hypernetwork, loss: Callable[[Tensor], Tensor] | None = None, points: int = 9) -> Diagnosis:
    """Measures a hypernetwork at `points` conditions, and warns if what it writes is proportional to |z|.

    Args:
        loss: z `[D]` → loss, on the same examples at each call.

    Raises:
        WeightgenError: for fewer than 3 points, or conditions without a range.
    """
    if points < 3:
        raise WeightgenError("too few conditions to compare", got=points, expected="at least 3")
    z = ends(hyper.space, points)
    norms = z.norm(dim=1)
    if float(norms.max() - norms.min()) < 1e-3:
        raise WeightgenError("the conditions have no range", got=", ".join(hyper.space.entries), expected="a number")
    with torch.no_grad():
        weight = next(hyper.body.parameters())
        features = hyper.body(hyper.space.encode(z.to(weight), hyper.config.input_encoding))
        matrices = [one for one in hyper.tensors_at(z).values() if one.dim() > 2] or [*hyper.tensors_at(z).values()]
        squares = torch.stack([one.square().flatten(1).mean(1) for one in matrices])  # [tensors, points]
        weights = (squares / squares.mean(1, keepdim=True).clamp(min=1e-30)).mean(0).sqrt()
    found = Diagnosis(
        norms.tolist(),
        features.square().mean(1).sqrt().tolist(),
        weights.tolist(),
        None if loss is None else [_gradient_norm(hyper, loss(one)) for one in z],
    )
    if found.slope > PROPORTIONAL:
        warnings.warn(
            f"what this hypernetwork writes grows with |z| (slope {found.slope:.2f}), so it learns little where the "
            "condition is small; encode the input (input_encoding=True)",
            stacklevel=2,
        )
    return found


def _gradient_norm(hyper: nn.Module, loss: Tensor) -> float:
    parameters = [parameter for parameter in hyper.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return float(torch.stack([one.norm() for one in gradients if one is not None]).norm())
