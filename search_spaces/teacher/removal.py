"""What removing layers does to the rest: emptied branches, and the channel groups that remain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from search_spaces.base import Cost, SpaceError
from search_spaces.teacher.analysis import CONNECTED, Layer, Reading
from search_spaces.teacher.architecture import TeacherArchitecture
from search_spaces.teacher.branches import Branch
from search_spaces.teacher.channels import Plan, WidthConflict, plan


@dataclass(frozen=True)
class Shape:
    """The skeleton of a student: what remains of the teacher, and how wide.

    `widths[i]` is the width that group i of `plan` keeps; `kernels` holds changed kernel sizes.
    """

    removed: frozenset[str]
    emptied: tuple[Branch, ...]
    plan: Plan
    widths: tuple[int, ...]
    kernels: dict[str, int]

    def width_in(self, layer: str) -> int:
        """Entries that come into a layer of `plan.ends`."""
        return self.plan.ends[layer].incoming.entries(self.kept)

    def width_out(self, layer: str) -> int:
        """Entries that leave a layer of `plan.ends`."""
        return self.plan.ends[layer].outgoing.entries(self.kept)

    @cached_property
    def kept(self) -> tuple[int, ...]:
        """How many classes of channels each group keeps."""
        return tuple(width // group.each for width, group in zip(self.widths, self.plan.groups, strict=True))


def keeps_widths(layer: Layer) -> bool:
    """Whether a layer's removal leaves all widths as they are."""
    return layer.kind not in CONNECTED or layer.width_in == layer.width_out


def emptied_branches(reading: Reading, removed: Iterable[str]) -> tuple[Branch, ...]:
    """The branches that have lost all their weights."""
    gone = frozenset(removed)
    return tuple(branch for branch in reading.branches if branch.weights and gone.issuperset(branch.weights))


def canonical(reading: Reading, removed: Iterable[str]) -> frozenset[str]:
    """The removed layers, with all that is left of a branch once its weights are gone: it is then the identity."""
    gone = frozenset(removed)
    return gone.union(*(branch.layers for branch in emptied_branches(reading, gone)))


def removal_plan(reading: Reading, removed: frozenset[str]) -> Plan:
    """The channel groups that remain.

    Raises:
        WidthConflict: what remains does not fit together, or a branch would be emptied that cannot be.
    """
    branches = emptied_branches(reading, removed)
    for branch in branches:
        if branch.reason:
            raise WidthConflict(f"the branch {branch.name} {branch.reason}")
    skipped = frozenset[int]().union(*(branch.nodes for branch in branches))
    emptied = {branch.add: branch.shortcut for branch in branches if branch.add not in skipped}
    return plan(reading.nodes, reading.widths, removed, emptied, skipped, reading.distrusted)


def conflict(reading: Reading, removed: frozenset[str]) -> str:
    """Why what remains does not fit together; empty where it does."""
    try:
        removal_plan(reading, removed)
    except WidthConflict as error:
        return str(error)
    return ""


def shape_of(
    reading: Reading, architecture: TeacherArchitecture, *, plans: dict[frozenset[str], Plan] | None = None
) -> Shape:
    """The skeleton of an architecture; `plans` remembers the channel groups of what was removed before.

    Raises:
        SpaceError: it belongs to another teacher, names what this one does not have, or does not fit together.
    """
    if architecture.teacher != reading.fingerprint:
        raise SpaceError(
            f"the architecture belongs to a teacher of structure {architecture.teacher}, this one is "
            f"{reading.fingerprint}; open the space on the network that the architecture came from"
        )
    known = {layer.name: layer for layer in reading.layers}
    unknown = [name for name in (*architecture.removed, *dict(architecture.kernels)) if name not in known]
    if unknown:
        raise SpaceError(f"the architecture names {unknown[0]!r}, which the teacher does not have")
    removed = canonical(reading, architecture.removed)
    emptied = emptied_branches(reading, removed)
    whole = {name for branch in emptied for name in branch.layers}
    stay = [name for name in architecture.removed if known[name].reason and name not in whole]
    if stay:
        raise SpaceError(f"the architecture removes {stay[0]}, which must stay: it {known[stay[0]].reason}")
    remaining = None if plans is None else plans.get(removed)
    if remaining is None:
        try:
            remaining = removal_plan(reading, removed)
        except WidthConflict as error:
            raise SpaceError(f"the architecture removes layers that cannot go together: {error}") from error
        if plans is not None:
            plans[removed] = remaining
    wished = dict(architecture.widths)
    stray = set(wished) - {group.name for group in remaining.groups}
    if stray:
        raise SpaceError(f"the architecture sets the width of {sorted(stray)[0]!r}, which is no group of the student")
    for group in remaining.groups:
        width = wished.get(group.name, group.width)
        if width != group.width and (group.frozen or not 0 < width <= group.width or width % group.unit):
            raise SpaceError(
                f"group {group.name}: expected a multiple of {group.unit} up to {group.width}"
                f"{', unchanged because it ' + group.frozen if group.frozen else ''}, found {width}"
            )
    for name, kernel in architecture.kernels:
        if not known[name].resizable or kernel % 2 != 1 or not 0 < kernel <= known[name].kernel:
            raise SpaceError(f"kernel of {name}: expected an odd size up to {known[name].kernel}, found {kernel}")
    widths = tuple(wished.get(group.name, group.width) for group in remaining.groups)
    return Shape(removed, emptied, remaining, widths, dict(architecture.kernels))


def layer_cost(reading: Reading, layer: Layer, shape: Shape) -> Cost:
    """Parameters and MACs of one layer of a student."""
    if layer.name in shape.removed:
        return Cost(0, 0)
    if layer.name not in shape.plan.ends:
        return Cost(layer.parameters, layer.macs)
    wide_in, wide_out = shape.width_in(layer.name), shape.width_out(layer.name)
    if layer.kind in CONNECTED:
        taps = shape.kernels.get(layer.name, 0) ** 2 or layer.taps
        groups = wide_in if layer.kind == "depthwise_conv" else layer.groups
        weights = wide_out * (wide_in // groups) * taps
        return Cost(weights + layer.bias * wide_out, layer.positions * weights)
    return Cost(layer.parameters * wide_out // reading.entries(layer), 0)


def outermost(emptied: Iterable[Branch]) -> tuple[Branch, ...]:
    """Without the branches that lie in another one: only the outer one still meets an add that counts."""
    found = tuple(emptied)
    return tuple(branch for branch in found if not any(branch.add in other.nodes for other in found))
