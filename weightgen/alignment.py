"""Alignment of one network to another: the same function, its hidden units where the other has theirs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from weightgen.checkpoint import Checkpoint
from weightgen.errors import ArchitectureError, CorruptFileError

if TYPE_CHECKING:
    from torch import Tensor

EXAMPLES = 2000
"""Of a task's train images so many are looked at in activation matching."""


@dataclass(frozen=True)
class Alignment:
    """An aligned network and what it gained.

    Args:
        checkpoint: the network, its function unchanged.
        before: the L2 distance of all floating-point tensors to the reference's, as they were.
        after: the same of the aligned network.
        method: `weights` or `activations`.
        groups: how many axis groups were permuted together.
    """

    checkpoint: Checkpoint
    before: float
    after: float
    method: str
    groups: int


def align(checkpoint: Checkpoint, reference: Checkpoint, task: str | None = None) -> Checkpoint:
    """The same network with hidden units in the order, scale and sign of a reference's; see `measured_alignment`."""
    return measured_alignment(checkpoint, reference, task).checkpoint


def measured_alignment(checkpoint: Checkpoint, reference: Checkpoint, task: str | None = None) -> Alignment:
    """Aligns a network to a reference of the same architecture.

    Units are matched by their weights (https://arxiv.org/abs/2209.04836), or, if a task is given, by the correlation of
    their answers to its train images. Scales and signs are changed only where the trace of the network proves that
    the function stays; scales become those of the reference, which itself is left as it is.

    Args:
        checkpoint: what is aligned.
        reference: a network of the same architecture.
        task: a Task's name for activation matching.

    Returns:
        The aligned network; float32 if any scale was changed, else in the kinds of its tensors.

    Raises:
        ArchitectureError: if the two are not of one architecture, or it cannot be traced; the first tensor that differs
            is named.
        CorruptFileError: if a tensor of either holds a NaN or an infinity.
    """
    _check(checkpoint, reference)
    groups = checkpoint.architecture.groups()
    from weightgen.structure.activations import correlations, match_activations
    from weightgen.structure.balance import balancing
    from weightgen.structure.matching import Matcher

    own, target = ({name: t.float() if t.is_floating_point() else t for name, t in network.state_dict().items()}
                   for network in (checkpoint, reference))  # fmt: skip
    own_scale, target_scale = (balancing(groups, {name: t[None] for name, t in one.items()}) for one in (own, target))
    balanced, goal = (
        {name: (t[None] * scale[name]).to(t.dtype)[0] if name in scale else t for name, t in one.items()}
        for one, scale in ((own, own_scale), (target, target_scale))
    )
    if task is None:
        batched = ({name: t[None] for name, t in one.items()} for one in (balanced, goal))
        matched = {name: t[0] for name, t in Matcher(groups).match(*batched).items()}
    else:
        alike = correlations(checkpoint.build(), reference.build(), groups, _examples(task))
        matched = match_activations(groups, balanced, goal, alike)
    aligned = {
        name: (t / target_scale[name][0]).to(t.dtype) if name in target_scale else t for name, t in matched.items()
    }
    scaled = bool(target_scale)
    kept = {name: t if scaled else t.to(checkpoint.tensor(name).dtype) for name, t in aligned.items()}
    method = "weights" if task is None else "activations"
    how = {"method": method, **({} if task is None else {"task": task})}
    card = replace(
        checkpoint.card, parents=(checkpoint.id, reference.id), origin="aligned",
        made_with={**checkpoint.card.made_with, "align": how},
    )  # fmt: skip
    return Alignment(
        Checkpoint(checkpoint.architecture, kept, card),
        _distance(own, target), _distance(aligned, target), method, len(groups),
    )  # fmt: skip


def _examples(task: str) -> "Tensor":
    from weightgen.tasks import get_task

    return get_task(task).train()[0][:EXAMPLES]


def _distance(one: Mapping[str, "Tensor"], other: Mapping[str, "Tensor"]) -> float:
    squares = (
        (tensor.double() - other[name].double()).square().sum().item()
        for name, tensor in one.items()
        if tensor.is_floating_point()
    )
    return sum(squares) ** 0.5


def _check(checkpoint: Checkpoint, reference: Checkpoint) -> None:
    got, expected = ({name: shape for name, (_, shape) in one.shapes.items()} for one in (checkpoint, reference))
    for name in dict.fromkeys([*expected, *got]):
        if got.get(name) != expected.get(name):
            raise ArchitectureError(
                "only networks of one architecture can be aligned", where=f"tensor '{name}'",
                got=f"shape {list(got[name])}" if name in got else "none",
                expected=f"shape {list(expected[name])} of {reference.architecture}" if name in expected else "none",
                remedy="choose a reference of the same architecture, as weightgen inspect shows it",
            )  # fmt: skip
    if checkpoint.architecture != reference.architecture:
        raise ArchitectureError(
            "only networks of one architecture can be aligned; these have the same tensors and compute other things",
            got=checkpoint.architecture, expected=reference.architecture,
        )  # fmt: skip
    for role, network in (("the network", checkpoint), ("the reference", reference)):
        for name in network.non_finite():
            raise CorruptFileError(
                "a tensor holds NaN or infinity", where=f"tensor '{name}' of {role}",
                remedy="nothing can be compared with it; train or load the network again",
            )  # fmt: skip
