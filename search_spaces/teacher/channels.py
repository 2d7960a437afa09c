"""Which channels must keep equal width: one walk over the graph, for the teacher or with layers removed.

Every producer of channels (conv, linear) opens a group; adds, depthwise convolutions and norms tie groups together;
whatever is not understood freezes the groups that reach it. A removed layer passes its input's channels on, and a
removed branch contributes nothing to its add.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod

from search_spaces.teacher.trace import Node

Fold = tuple[str, int]
"""A removed weight layer that later consumers have to make up for (name, 0), or a flatten ("", entries a channel)."""


class WidthConflict(Exception):  # noqa: N818 - a signal between two functions, not an error that users see
    """Two places that must agree in width do not, so the removal is not legal."""


@dataclass(frozen=True)
class Channels:
    """How the channels of a group lie in a tensor: along `axis`, `repeat` neighbouring entries for each channel."""

    axis: int
    group: int
    repeat: int = 1
    folds: tuple[Fold, ...] = ()


@dataclass(frozen=True)
class Group:
    """Channels that keep equal width.

    `name` is the first layer that produces them, `width` their number, of which any choice must keep the same number in
    each of `blocks` equal blocks; `frozen` says why the width may not change (empty: it may). `producers` and `scales`
    are the layers whose output rows, and whose per-channel scales, are these channels.
    """

    name: str
    width: int
    blocks: int
    frozen: str
    producers: tuple[str, ...]
    scales: tuple[str, ...]


@dataclass(frozen=True)
class Ends:
    """What enters and leaves one surviving layer; `group` of each refers to `Plan.groups`."""

    incoming: Channels
    outgoing: Channels


@dataclass(frozen=True)
class Plan:
    """The groups of a network; the channels at the two ends of each surviving layer with weights or scales, and those
    of each node's value (None where they are not known)."""

    groups: tuple[Group, ...]
    ends: dict[str, Ends]
    values: dict[int, Channels | None]


@dataclass
class _Walk:
    nodes: tuple[Node, ...]
    removed: frozenset[str]
    emptied: dict[int, int]  # add node → the input that remains
    skipped: frozenset[int]  # nodes of removed branches
    widths: dict[str, int]  # teacher's output width of conv and linear layers
    parent: list[int] = field(default_factory=list)
    width: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    frozen: list[str] = field(default_factory=list)
    birth: list[str] = field(default_factory=list)
    members: list[tuple[str, str, int]] = field(default_factory=list)  # (layer, "producer" | "scale", group)
    ends: dict[str, Ends] = field(default_factory=dict)

    def new(self, width: int, name: str, frozen: str = "") -> int:
        self.parent.append(len(self.parent))
        self.width.append(width)
        self.blocks.append(1)
        self.frozen.append(frozen)
        self.birth.append(name)
        return len(self.parent) - 1

    def find(self, group: int) -> int:
        while self.parent[group] != group:
            group = self.parent[group]
        return group

    def tie(self, first: int, second: int) -> None:
        first, second = sorted((self.find(first), self.find(second)))
        if first == second:
            return
        if self.width[first] != self.width[second]:
            raise WidthConflict(f"{self.width[first]} channels meet {self.width[second]}")
        self.parent[second] = first
        self.frozen[first] = self.frozen[first] or self.frozen[second]
        self.block(first, self.blocks[second])

    def block(self, group: int, blocks: int) -> None:
        group = self.find(group)
        if self.width[group] % blocks:
            raise WidthConflict(f"{self.width[group]} channels do not divide into {blocks} groups")
        few, many = sorted((self.blocks[group], blocks))
        self.blocks[group] = many
        if many % few:
            self.freeze(group, f"is divided into {few} and into {many} groups")

    def freeze(self, group: int, reason: str) -> None:
        group = self.find(group)
        self.frozen[group] = self.frozen[group] or reason

    def entries(self, channels: Channels) -> int:
        return self.width[self.find(channels.group)] * channels.repeat

    def hold(self, channels: Channels | None, node: Node, size: int, reason: str) -> None:
        """Freeze what reaches a place that insists on the teacher's width."""
        if channels is None:
            return
        if self.entries(channels) != size:
            raise WidthConflict(f"{node.target} at {node.line} expects {size} channels")
        self.freeze(channels.group, reason)


def plan(
    nodes: tuple[Node, ...],
    widths: dict[str, int],
    removed: frozenset[str] = frozenset(),
    emptied: dict[int, int] | None = None,
    skipped: frozenset[int] = frozenset(),
) -> Plan:
    """The channel groups with some layers removed.

    Args:
        nodes: the graph.
        widths: output width of each conv and linear layer.
        removed: layers that pass their input on.
        emptied: for each add whose branch is gone, the input that remains.
        skipped: the nodes of such branches.

    Raises:
        WidthConflict: the remaining layers do not fit together.
    """
    walk = _Walk(nodes, removed, emptied or {}, skipped, widths)
    values: dict[int, Channels | None] = {}
    for node in nodes:
        if node.index in walk.skipped:
            continue
        if node.layer in removed:
            values[node.index] = _pass_on(walk, node, values[node.inputs[0]])
        elif node.index in walk.emptied:
            values[node.index] = values[walk.emptied[node.index]]
        else:
            values[node.index] = _RULES[node.op](walk, node, [values[i] for i in node.inputs])
    return _finish(walk, values)


def _pass_on(walk: _Walk, node: Node, channels: Channels | None) -> Channels | None:
    if node.op not in {"conv", "linear"}:
        return channels
    before, axis = walk.nodes[node.inputs[0]].shape, len(node.shape) - 1 if node.op == "linear" else 1
    if channels is None or channels.axis != axis:
        # Nobody follows these channels, so nobody could bring the consumers to another width.
        if before[axis] != node.shape[axis]:
            raise WidthConflict(f"{node.layer} turns {before[axis]} channels of unknown origin into {node.shape[axis]}")
        return channels
    return Channels(channels.axis, channels.group, channels.repeat, (*channels.folds, (node.layer, 0)))


def _opaque(walk: _Walk, node: Node, inputs: list[Channels | None]) -> Channels | None:
    for channels, index in zip(inputs, node.inputs, strict=True):
        if channels is not None:
            size = walk.nodes[index].shape[channels.axis]
            walk.hold(channels, node, size, f"reaches {node.target} at {node.line or 'an unknown line'}")
    return None


def _input(walk: _Walk, node: Node, inputs: list[Channels | None]) -> Channels | None:
    if len(node.shape) < 2:
        return None
    # Images carry channels on axis 1, flat features and tokens on the last axis.
    axis = 1 if len(node.shape) != 3 else 2
    return Channels(axis, walk.new(node.shape[axis], f"input{node.index}", "is the network's input"))


def _output(walk: _Walk, node: Node, inputs: list[Channels | None]) -> Channels | None:
    for channels, index in zip(inputs, node.inputs, strict=True):
        if channels is not None:
            walk.hold(channels, node, walk.nodes[index].shape[channels.axis], "is the network's output")
    return None


def _known(walk: _Walk, node: Node, channels: Channels | None, axis: int) -> Channels:
    """The input of a weight layer; one of unknown origin has a frozen width of its own."""
    size = walk.nodes[node.inputs[0]].shape[axis]
    if channels is not None and channels.axis == axis:
        return channels
    walk.hold(channels, node, walk.nodes[node.inputs[0]].shape[channels.axis] if channels else 0, "changes its axis")
    return Channels(axis, walk.new(size, f"before {node.layer}", "comes from an operation that is not understood"))


def _conv(walk: _Walk, node: Node, inputs: list[Channels | None]) -> Channels | None:
    groups, out = node.detail[0], walk.widths[node.layer]
    incoming = _known(walk, node, inputs[0], 1)
    full = walk.nodes[node.inputs[0]].shape[1]
    if groups > 1 and groups == full:  # depthwise: the output's channels are the input's
        many = out // full
        folds = (*incoming.folds, ("", many)) if incoming.folds and many > 1 else incoming.folds
        outgoing = Channels(1, incoming.group, incoming.repeat * many, folds)
        walk.members.append((node.layer, "scale", incoming.group))
    else:
        outgoing = Channels(1, walk.new(out, node.layer))
        walk.members.append((node.layer, "producer", outgoing.group))
        if groups > 1:
            if incoming.repeat != 1 or walk.entries(incoming) != full:
                raise WidthConflict(f"{node.layer} divides {full} channels into {groups} groups")
            walk.block(incoming.group, groups)
            walk.block(outgoing.group, groups)
    walk.ends[node.layer] = Ends(incoming, outgoing)
    return outgoing


def _linear(walk: _Walk, node: Node, inputs: list[Channels | None]) -> Channels | None:
    axis = len(node.shape) - 1
    incoming = _known(walk, node, inputs[0], axis)
    outgoing = Channels(axis, walk.new(walk.widths[node.layer], node.layer))
    walk.members.append((node.layer, "producer", outgoing.group))
    walk.ends[node.layer] = Ends(incoming, outgoing)
    return outgoing


def _scaled(walk: _Walk, node: Node, inputs: list[Channels | None]) -> Channels | None:
    """Norms with one number for each channel on axis 1."""
    channels = inputs[0]
    if channels is None:
        return None
    if channels.axis != 1 or not node.layer:
        return _opaque(walk, node, inputs)
    if node.op == "group_norm":
        if channels.repeat != 1:
            return _opaque(walk, node, inputs)
        walk.block(channels.group, node.detail[0])
    walk.members.append((node.layer, "scale", channels.group))
    walk.ends[node.layer] = Ends(channels, channels)
    return channels


def _layer_norm(walk: _Walk, node: Node, inputs: list[Channels | None]) -> Channels | None:
    channels = inputs[0]
    if channels is None:
        return None
    if channels.axis < len(node.shape) - node.detail[0]:
        return channels  # the channels are not among the normalised axes
    if not node.layer:
        return _opaque(walk, node, inputs)
    walk.members.append((node.layer, "scale", channels.group))
    walk.ends[node.layer] = Ends(channels, channels)
    return channels


def _same(walk: _Walk, node: Node, inputs: list[Channels | None]) -> Channels | None:
    return inputs[0]


def _pool(walk: _Walk, node: Node, inputs: list[Channels | None]) -> Channels | None:
    channels = inputs[0]
    return channels if channels is None or channels.axis == 1 else _opaque(walk, node, inputs)


def _binary(walk: _Walk, node: Node, inputs: list[Channels | None]) -> Channels | None:
    first, second = inputs
    if first is None or second is None:
        return _opaque(walk, node, inputs)
    from_end = [c.axis - len(walk.nodes[i].shape) for c, i in zip((first, second), node.inputs, strict=True)]
    sizes = [walk.nodes[i].shape[c.axis] for c, i in zip((first, second), node.inputs, strict=True)]
    if from_end[0] != from_end[1] or first.repeat != second.repeat or sizes[0] != sizes[1]:
        return _opaque(walk, node, inputs)
    walk.tie(first.group, second.group)
    # Where both sides were brought to another width, the shorter chain of removed layers stands for both.
    changed = walk.entries(first) != sizes[0]
    folds = min(first.folds, second.folds, key=len) if changed else ()
    return Channels(len(node.shape) + from_end[0], first.group, first.repeat, folds)


def _flatten(walk: _Walk, node: Node, inputs: list[Channels | None]) -> Channels | None:
    channels, start = inputs[0], node.detail[0]
    if channels is None or channels.axis < start:
        return channels
    if channels.axis > start:
        return _opaque(walk, node, inputs)
    entries = prod(walk.nodes[node.inputs[0]].shape[start + 1 :])
    folds = (*channels.folds, ("", entries)) if channels.folds and entries > 1 else channels.folds
    return Channels(start, channels.group, channels.repeat * entries, folds)


def _mean(walk: _Walk, node: Node, inputs: list[Channels | None]) -> Channels | None:
    channels, keeps, axes = inputs[0], node.detail[0], node.detail[1:]
    if channels is None or channels.axis in axes:
        return _opaque(walk, node, inputs)
    gone = 0 if keeps else sum(axis < channels.axis for axis in axes)
    return Channels(channels.axis - gone, channels.group, channels.repeat, channels.folds)


def _permute(walk: _Walk, node: Node, inputs: list[Channels | None]) -> Channels | None:
    channels = inputs[0]
    if channels is None:
        return None
    return Channels(node.detail.index(channels.axis), channels.group, channels.repeat, channels.folds)


_Rule = Callable[[_Walk, Node, list[Channels | None]], Channels | None]
_RULES: dict[str, _Rule] = {
    "input": _input,
    "output": _output,
    "opaque": _opaque,
    "conv": _conv,
    "linear": _linear,
    "batch_norm": _scaled,
    "group_norm": _scaled,
    "vector": _scaled,
    "layer_norm": _layer_norm,
    "same": _same,
    "pool": _pool,
    "binary": _binary,
    "flatten": _flatten,
    "mean": _mean,
    "permute": _permute,
}


def _finish(walk: _Walk, values: dict[int, Channels | None]) -> Plan:
    roots = [group for group in range(len(walk.parent)) if walk.parent[group] == group]
    position = {root: i for i, root in enumerate(roots)}
    producers: dict[int, list[str]] = {root: [] for root in roots}
    scales: dict[int, list[str]] = {root: [] for root in roots}
    for layer, role, group in walk.members:
        (producers if role == "producer" else scales)[walk.find(group)].append(layer)
    groups = tuple(
        Group(
            (producers[r] or [walk.birth[r]])[0], walk.width[r], walk.blocks[r], walk.frozen[r],
            tuple(producers[r]), tuple(scales[r]),
        )
        for r in roots
    )  # fmt: skip

    known: dict[int, Channels] = {}  # most nodes pass on the very object that they were given

    def settled(channels: Channels) -> Channels:
        if id(channels) not in known:
            group = position[walk.find(channels.group)]
            known[id(channels)] = Channels(channels.axis, group, channels.repeat, channels.folds)
        return known[id(channels)]

    ends = {name: Ends(settled(ends.incoming), settled(ends.outgoing)) for name, ends in walk.ends.items()}
    return Plan(groups, ends, {index: value and settled(value) for index, value in values.items()})
