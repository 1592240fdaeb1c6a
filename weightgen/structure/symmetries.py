"""Symmetries: which groups' units may be scaled, or change sign, with the function unchanged, read off the trace.

Every member of a group gets an unknown power; a unit scaled by s multiplies its values in that member by s to that
power. How the values of the network then scale is followed through the recorded calls (`powers`), as sums of unknowns,
and each call says which sums must be equal or vanish: a ReLU lets scales pass, a contraction with the next weights
cancels theirs, adding a constant forbids them. What remains are linear equations for each group; their solutions are
exact symmetries. For signs the same is done modulo 2, with odd functions in the place of those that are free of scale.

Whatever is not known to let a scale pass forbids it. So a symmetry may be missed (of a grouped convolution's columns,
of what an einsum or a recurrent layer computes, of a convolution before a norm, which adds its epsilon), but none is
wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from weightgen.structure.axes import AxisGraph, AxisGroup, Member
from weightgen.structure.constraints import Array
from weightgen.structure.labels import Labels
from weightgen.structure.passing import power_rule
from weightgen.structure.powers import Equations, Occurrences, Recorded, follow

Owners = Mapping[tuple[str, int], Labels]
"""Name and axis of a tensor of the state dict → its labels in the trace."""


def with_symmetries(
    graph: AxisGraph, nodes: Sequence[Array], parameters: Mapping[str, Labels], calls: Sequence[Recorded]
) -> AxisGraph:
    """The graph with the scales and signs of its groups.

    Args:
        nodes: of each group the nodes that move with it.
        parameters: name → labels of every tensor of the state dict that the trace reads.
        calls: what the trace computes, in order.
    """
    occurrences = Occurrences(nodes)
    found = []
    for signs in (False, True):
        equations = Equations(signs)
        unknowns = {
            name: {at: equations.unknown(at[0], (id(labels), at[1])) for at in occurrences.of(labels)}
            for name, labels in parameters.items()
        }
        follow(calls, occurrences, equations, parameters.values(), power_rule)
        found.append([_solutions(number, group, unknowns, equations) for number, group in enumerate(graph.groups)])
    groups = [
        replace(group, scales=tuple(one for one in scales if min(one) == -1), signs=signs)
        for group, scales, signs in zip(graph.groups, *found, strict=True)
    ]
    return replace(graph, groups=tuple(groups))


def _solutions(
    number: int, group: AxisGroup, unknowns: Mapping[str, Mapping], equations: Equations
) -> tuple[tuple[int, ...], ...]:
    """The independent powers of a group's members, of −1, 0 and 1."""
    columns = equations.unknowns(number)
    if not columns:
        return ()
    basis = equations.solve(number)
    members = [_unknown(number, member, unknowns) for member in group.members]
    found = []
    for row in basis:
        powers = tuple(0 if one is None else int(row[columns.index(one)]) for one in members)
        if any(powers) and max(map(abs, powers)) == 1:
            found.append(powers if next(power for power in powers if power) > 0 else tuple(-power for power in powers))
    return tuple(found)


def _unknown(number: int, member: Member, unknowns: Mapping[str, Mapping]) -> int | None:
    """The unknown of a member; what lies in a part of a tensor has none and keeps its scale."""
    if member.within is not None:
        return None
    return unknowns.get(member.tensor, {}).get((number, (member.axis,)))
