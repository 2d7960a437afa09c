"""How channels travel through changes of axes: which axes of one shape become which axes of another."""

from __future__ import annotations

from math import prod

import numpy as np

from search_spaces.teacher.flows import Flow, Ints, WidthConflict, repeated
from search_spaces.teacher.walk import Walk

Block = tuple[tuple[int, ...], tuple[int, ...]]
"""Axes before and axes after that hold the same entries."""


def axis_blocks(before: tuple[int, ...], after: tuple[int, ...]) -> list[Block]:
    """The smallest runs of axes of equal size; axes of size 1 are left out."""
    old = [axis for axis, size in enumerate(before) if size != 1]
    new = [axis for axis, size in enumerate(after) if size != 1]
    blocks: list[Block] = []
    i = j = 0
    while i < len(old) and j < len(new):
        left, right = [old[i]], [new[j]]
        i, j = i + 1, j + 1
        while (a := prod(before[x] for x in left)) != (b := prod(after[x] for x in right)):
            if a < b:
                left.append(old[i])
                i += 1
            else:
                right.append(new[j])
                j += 1
        blocks.append((tuple(left), tuple(right)))
    return blocks


def reshaped(
    walk: Walk, flow: Flow, before: tuple[int, ...], after: tuple[int, ...], inferred: int
) -> tuple[Flow, bool] | None:
    """The channels in another shape of the same entries, and whether the asker's sizes follow them for certain.

    Args:
        walk: notes which channels must go together where an axis is split.
        flow: the channels before.
        before, after: the teacher's shapes.
        inferred: the axis of `after` whose size is left to the tensor, -1 where all are given.

    Returns:
        None where the channels are mixed with other axes in a way that cannot be followed.

    Raises:
        WidthConflict: removed layers changed the number of channels, and the new shape does not allow that.
    """
    if before[flow.axis] == 1:
        return None
    old, new = next(block for block in axis_blocks(before, after) if flow.axis in block[0])
    if (0 in old and len(old) > 1) or (0 in new and len(new) > 1):
        return None  # the batch is mixed in
    if len(new) == 1:
        return _merged(flow, [before[axis] for axis in old], old.index(flow.axis), new[0]), inferred == new[0]
    if len(old) > 1:
        return None
    if len(flow) != before[flow.axis]:
        raise WidthConflict(f"{len(flow)} channels are split into {[after[axis] for axis in new]}")
    chosen = inferred if inferred in new else new[-1]
    return _split(walk, flow, [after[axis] for axis in new], new.index(chosen), chosen), False


def _merged(flow: Flow, sizes: list[int], position: int, axis: int) -> Flow:
    """Channels among other axes that become one: each entry of them, repeated and tiled."""
    outer, inner = prod(sizes[:position]), prod(sizes[position + 1 :])
    found = repeated(flow, axis, inner)
    if outer == 1:
        return found
    if len(flow) != sizes[position]:
        raise WidthConflict(f"{len(flow)} channels are merged with {outer} others")
    return Flow(axis, np.tile(found.atoms, outer))


def _split(walk: Walk, flow: Flow, sizes: list[int], position: int, axis: int) -> Flow:
    """One axis that becomes several: one of them carries the channels, the others keep their size."""
    grid: Ints = np.moveaxis(flow.atoms.reshape(sizes), position, -1).reshape(-1, sizes[position])
    return Flow(axis, walk.tie_rows(grid))
