"""Channel groups: which layers must keep equal width, and which widths cannot change, with layers removed.

Every producer of channels (conv, linear, embedding) brings forth as many atoms as it has outputs. The rules say what
becomes of them; atoms that must go or stay together form a class, and classes that lie alike in all tensors form a
group, of which any number may be kept.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from search_spaces.teacher.flows import Flow, Ints, Joined, Mapped, Repeated, WidthConflict
from search_spaces.teacher.rules import RULES, opaque, pass_on
from search_spaces.teacher.trace import Node
from search_spaces.teacher.walk import Walk

__all__ = ["Channels", "Ends", "Flow", "Group", "Joined", "Mapped", "Plan", "Repeated", "WidthConflict", "plan"]


@dataclass(frozen=True, eq=False)
class Channels:
    """How the channels of groups lie in a tensor: along `axis`, entry i belongs to class `classes[i]`.

    `counts` are pairs of a group and how many entries each of its classes has; `flow` tells what removed layers did.
    """

    axis: int
    classes: Ints
    counts: tuple[tuple[int, int], ...]
    flow: Flow

    @property
    def groups(self) -> frozenset[int]:
        """The groups whose channels these are."""
        return frozenset(group for group, _ in self.counts)

    def entries(self, kept: tuple[int, ...]) -> int:
        """How many entries there are where group i keeps `kept[i]` classes."""
        return sum(kept[group] * many for group, many in self.counts)


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that keep equal width.

    `name` is the first layer that produces them, `width` the number that it produces, `each` how many of them each of
    the `classes` holds. Any choice keeps the same number of classes in each of `blocks` equal blocks; `frozen` says why
    the width may not change (empty: it may). `producers` and `scales` are the layers whose output rows, and whose
    per-channel scales, are these channels.
    """

    name: str
    width: int
    each: int
    blocks: int
    frozen: str
    classes: Ints
    producers: tuple[str, ...]
    scales: tuple[str, ...]

    @property
    def unit(self) -> int:
        """Any width is a multiple of this."""
        return self.each * self.blocks


@dataclass(frozen=True, eq=False)
class Ends:
    """What enters and leaves one surviving layer."""

    incoming: Channels
    outgoing: Channels


@dataclass(frozen=True, eq=False)
class Plan:
    """The groups of a network; the channels at the two ends of each surviving layer with weights or scales, and those
    of each node's value (None where they are not known).

    `suspects` maps nodes whose sizes may be constants to the groups that reach them.
    """

    groups: tuple[Group, ...]
    ends: dict[str, Ends]
    values: dict[int, Channels | None]
    suspects: dict[int, frozenset[int]]
    classes: int


def plan(
    nodes: tuple[Node, ...],
    widths: dict[str, int],
    removed: frozenset[str] = frozenset(),
    emptied: dict[int, int] | None = None,
    skipped: frozenset[int] = frozenset(),
    distrusted: dict[int, str] | None = None,
) -> Plan:
    """The channel groups with some layers removed.

    Args:
        nodes: the graph.
        widths: output width of each layer with weights.
        removed: layers that pass their input on.
        emptied: for each add whose branch is gone, the input that remains.
        skipped: the nodes of such branches.
        distrusted: nodes that freeze what reaches them, with the reason.

    Raises:
        WidthConflict: the remaining layers do not fit together.
    """
    walk, emptied = Walk(nodes, widths, removed, distrusted or {}), emptied or {}
    values: dict[int, Flow | None] = {-1: None}
    for node in nodes:
        if node.index in skipped:
            continue
        if node.layer in removed:
            values[node.index] = pass_on(walk, node, values[node.inputs[0]])
        elif node.index in emptied:
            values[node.index] = values[emptied[node.index]]
        else:
            rule = opaque if node.index in walk.distrusted else RULES[node.op]
            values[node.index] = rule(walk, node, [values[i] for i in node.operands])
    del values[-1]
    return _Settled(walk, values).plan()


class _Settled:
    """A finished walk: atoms become classes, classes become groups."""

    def __init__(self, walk: Walk, values: dict[int, Flow | None]) -> None:
        self.walk, self.values = walk, values
        self.label = _components(walk)  # [atoms] → class
        self.classes = int(self.label.max()) + 1 if len(self.label) else 0
        ends = [flow for pair in walk.ends.values() for flow in pair]
        flows = [flow for flow in (*ends, *values.values(), *(f for _, f in walk.suspects)) if flow is not None]
        self.flows = list({id(flow): flow for flow in flows}.values())
        self.reasons = [""]
        self.reason_of = np.zeros(self.classes, dtype=np.int64)
        for atoms, reason in walk.frozen:
            self._freeze(self.label[atoms], reason)
        self.blocks = self._divisions()
        self.group_of, self.members = self._groups()

    def plan(self) -> Plan:
        found: dict[int, Channels] = {}
        for flow in self.flows:
            classes = self.label[flow.atoms]
            groups, entries = np.unique(self.group_of[classes], return_counts=True)
            counts = tuple((int(g), int(n) // len(self.members[g])) for g, n in zip(groups, entries, strict=True))
            found[id(flow)] = Channels(flow.axis, classes, counts, flow)
        ends = {name: Ends(found[id(a)], found[id(b)]) for name, (a, b) in self.walk.ends.items()}
        suspects: dict[int, frozenset[int]] = {}
        for node, flow in self.walk.suspects:
            suspects[node] = suspects.get(node, frozenset()) | found[id(flow)].groups
        values = {index: None if flow is None else found[id(flow)] for index, flow in self.values.items()}
        return Plan(self._named(found), ends, values, suspects, self.classes)

    def _freeze(self, classes: Ints, reason: str) -> None:
        """The first reason is the one that is told."""
        self.reasons.append(reason)
        fresh = classes[self.reason_of[classes] == 0]
        self.reason_of[fresh] = len(self.reasons) - 1

    def _divisions(self) -> Ints:
        """The number of the block [classes] of each class where blocks must keep equally many, else 0."""
        block_of = np.zeros(self.classes, dtype=np.int64)
        many = np.ones(self.classes, dtype=np.int64)
        for atoms, blocks in sorted(self.walk.divided, key=lambda pair: -pair[1]):
            classes = self.label[atoms]
            block = np.arange(len(atoms)) * blocks // len(atoms)
            spread = np.zeros((self.classes, 2), dtype=np.int64)
            spread[:, 0] = blocks
            np.minimum.at(spread[:, 0], classes, block)
            np.maximum.at(spread[:, 1], classes, block)
            inside = spread[classes, 0] == spread[classes, 1]
            if not inside.any() and len(np.unique(classes)) * blocks == len(classes):
                continue  # each class has one entry in each block
            first = many[classes[0]]
            finer = bool((many[classes] == first).all()) and first % blocks == 0
            if not inside.all() or (first > 1 and not finer):
                self._freeze(classes, f"is divided into {blocks} groups in more than one way")
            elif first == 1:
                block_of[classes], many[classes] = block, blocks
        self.many = many
        return block_of

    def _groups(self) -> tuple[Ints, list[Ints]]:
        """The group of each class, and the classes of each group in order."""
        mark = np.zeros(self.classes, dtype=np.uint64)
        for flow, number in zip(self.flows, _numbers(len(self.flows)), strict=True):
            np.add.at(mark, self.label[flow.atoms], number)
        same = np.stack([mark, self.reason_of.astype(np.uint64), self.many.astype(np.uint64)], axis=1)
        _, first, inverse = np.unique(same, axis=0, return_index=True, return_inverse=True)
        order = np.argsort(np.argsort(first))  # groups in the order of their first class
        group_of: Ints = order[inverse.reshape(-1)]
        members = [np.flatnonzero(group_of == group) for group in range(len(first))]
        for group, classes in enumerate(members):
            blocks = int(self.many[classes[0]])
            even = np.repeat(np.arange(blocks), len(classes) // blocks) if len(classes) % blocks == 0 else None
            ranks = np.unique(self.blocks[classes], return_inverse=True)[1].reshape(-1)
            if blocks > 1 and (even is None or not np.array_equal(ranks, even)):
                self._freeze(members[group], f"is divided unevenly into {blocks} groups")
        return group_of, members

    def _named(self, found: dict[int, Channels]) -> tuple[Group, ...]:
        producers: list[list[tuple[str, int]]] = [[] for _ in self.members]
        scales: list[list[str]] = [[] for _ in self.members]
        for layer, role, flow in self.walk.members:
            for group, each in found[id(flow)].counts:
                if role == "producer":
                    producers[group].append((layer, each))
                else:
                    scales[group].append(layer)
        starts = [start for start, _ in self.walk.births]
        first_atom = np.unique(self.label, return_index=True)[1]
        names: dict[str, int] = {}
        groups = []
        for index, classes in enumerate(self.members):
            born = self.walk.births[bisect_right(starts, int(first_atom[classes[0]])) - 1][1]
            name, each = producers[index][0] if producers[index] else (born, 1)
            names[name] = names.get(name, 0) + 1
            groups.append(
                Group(
                    name=name if names[name] == 1 else f"{name}#{names[name]}",
                    width=len(classes) * each,
                    each=each,
                    blocks=int(self.many[classes[0]]),
                    frozen=self.reasons[int(self.reason_of[classes[0]])],
                    classes=classes,
                    producers=tuple(layer for layer, _ in producers[index]),
                    scales=tuple(scales[index]),
                )
            )
        return tuple(groups)


def _components(walk: Walk) -> Ints:
    """The class [atoms] of each atom, numbered in the order of their first atoms."""
    if not walk.ties:
        return np.arange(walk.size)
    rows = np.concatenate([first for first, _ in walk.ties])
    columns = np.concatenate([second for _, second in walk.ties])
    graph = coo_matrix((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(walk.size, walk.size))
    label = connected_components(graph, directed=False)[1]
    first, inverse = np.unique(label, return_index=True, return_inverse=True)[1:]
    order: Ints = np.argsort(np.argsort(first))[inverse.reshape(-1)]
    return order


def _numbers(count: int) -> Ints:
    """Well-spread 64-bit numbers (splitmix64), to tell sets of tensors apart by their sums."""
    with np.errstate(over="ignore"):
        z = (np.arange(1, count + 1, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: Ints = z ^ (z >> np.uint64(31))
    return mixed
