"""Orders: the table of a layout by which a gather also permutes hidden units, each network in its own way.

Aligning networks and gathering their tokens is then one pass: what alignment gives is an order for each axis group, and
the kernels take the orders with the table. A scatter with the same orders undoes them.
"""

import itertools
from collections.abc import Sequence

from torch import Tensor

from weightgen.errors import ArchitectureError
from weightgen.kernels import Segment, segments_of, table_of
from weightgen.structure import AxisGroup, Member
from weightgen.tokenizers.layout import Layout
from weightgen.tokenizers.rows import Piece, size_of


def permuted_table(layout: Layout, groups: Sequence[AxisGroup]) -> Tensor:
    """The table for permutations int64 `[networks, units]`: the orders of all groups side by side.

    Unit `permutations[n, i]` of network n comes to place i, in every member of its group.

    Raises:
        ArchitectureError: if members lie on axes that a segment cannot permute, or two on one axis.
    """
    pieces = [piece for block in layout.blocks for piece in block.pieces]
    places = {piece.tensor: number for number, piece in enumerate(pieces)}
    segments = segments_of(layout.table)
    starts = itertools.accumulate((group.size for group in groups), initial=0)
    for group, start in zip(groups, starts, strict=False):
        for member in group.members:
            if member.tensor not in places:
                raise _cannot(member, "no tensor of this layout that has values")
            number = places[member.tensor]
            shape = layout.shapes[member.tensor]
            if not member.axis < len(shape) or group.size * member.block != shape[member.axis]:
                raise _cannot(member, f"shape {shape} for {group.size} units of {member.block}")
            segments[number] = _permuted(segments[number], pieces[number], shape, member, group.size, start)
    return table_of(segments)


def _permuted(segment: Segment, piece: Piece, shape: tuple[int, ...], member: Member, size: int, start: int) -> Segment:
    if member.axis == piece.axis:
        if segment.row_permutation >= 0:
            raise _cannot(member, "two groups on one axis")
        return segment._replace(row_permutation=start, row_block=member.block)
    if segment.column_permutation >= 0:
        raise _cannot(member, "two groups along the columns of one tensor")
    before = [length for axis, length in enumerate(shape[: member.axis]) if axis != piece.axis]
    if size_of(before) != 1:
        raise _cannot(member, "an axis within the columns")
    if piece.axis is not None and member.axis < piece.axis:
        # Rows lie along a later axis, so that neighbouring units of columns are a whole matrix of rows apart.
        if member.block != 1 or piece.axis != member.axis + 1:
            raise _cannot(member, f"blocks of {member.block} that lie apart")
        return segment._replace(column_permutation=start)
    block = segment.width // size
    return segment._replace(units=size, block=block, source_unit_stride=block, column_permutation=start)


def _cannot(member: Member, got: str) -> ArchitectureError:
    return ArchitectureError(
        "an axis group that a gather cannot permute", where=f"axis {member.axis} of tensor '{member.tensor}'", got=got,
        remedy="permute the tensors before they are gathered",
    )  # fmt: skip
