"""Residual branches: what runs beside a shortcut and ends in an add."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import networkx as nx

from search_spaces.teacher.operations import WEIGHTS, ZERO_TO_ZERO, base_name
from search_spaces.teacher.trace import Node


@dataclass(frozen=True)
class Branch:
    """A residual branch.

    `add` is the node that joins it, `shortcut` the node whose value remains when the branch is gone, `split` the node
    where both begin. `layers` lie wholly inside; `weights` are those of them with weights. `host` is the layer in whose
    place zeros are produced when the branch is gone, `stride` how much smaller its result is than its input.
    `reason` says why the branch cannot be emptied (empty: it can).
    """

    name: str
    add: int
    split: int
    shortcut: int
    nodes: frozenset[int]
    layers: tuple[str, ...]
    weights: tuple[str, ...]
    host: str
    stride: int
    reason: str


def graph_of(nodes: tuple[Node, ...]) -> nx.DiGraph:
    """The nodes as a directed graph under one root, -1, above all inputs."""
    graph = nx.DiGraph()
    graph.add_node(-1)
    for node in nodes:
        graph.add_node(node.index)
        for source in node.inputs or (-1,):
            graph.add_edge(source, node.index)
    return graph


def find_branches(nodes: tuple[Node, ...], graph: nx.DiGraph) -> tuple[Branch, ...]:
    """All residual branches, in the order of their adds."""
    dominators = nx.immediate_dominators(graph, -1)
    found = []
    for node in nodes:
        if node.op == "binary" and base_name(node.target) == "add" and node.inputs[0] != node.inputs[1]:
            split = int(dominators[node.index])
            branch = _branch(nodes, graph, node, split)
            if branch is not None:
                found.append(branch)
    names = Counter(branch.name for branch in found)
    return tuple(
        branch if branch.name and names[branch.name] == 1 else replace(branch, name=branch.host or f"add {branch.add}")
        for branch in found
    )


def _branch(nodes: tuple[Node, ...], graph: nx.DiGraph, add: Node, split: int) -> Branch | None:
    if split < 0:
        return None
    below = nx.descendants(graph, split)
    sides = [frozenset((nx.ancestors(graph, end) | {end}) & below) for end in add.inputs]
    if sides[0] & sides[1]:
        return None
    weights = [sum(nodes[i].op in WEIGHTS for i in side) for side in sides]
    longer = 0 if (weights[0], len(sides[0])) >= (weights[1], len(sides[1])) else 1
    inside = sides[longer]
    if not weights[longer] or any(set(graph.successors(i)) - inside - {add.index} for i in inside):
        return None
    layers = _whole_layers(nodes, inside)
    weighted = tuple(name for name in layers if any(n.layer == name and n.op in WEIGHTS for n in nodes))
    host = _host(nodes, add.inputs[longer])
    stride, reason = _stride(nodes, inside, nodes[split], nodes[add.inputs[longer]])
    unnamed = any(nodes[i].op in WEIGHTS and not nodes[i].layer for i in inside)
    if not host or host not in layers:
        reason = f"ends in {nodes[add.inputs[longer]].target}, in whose place no zeros can be put"
    elif unnamed:
        reason = "holds weights that belong to no layer"
    return Branch(
        _common_path(weighted), add.index, split, add.inputs[1 - longer], inside, layers, weighted,
        host, stride, reason,
    )  # fmt: skip


def _whole_layers(nodes: tuple[Node, ...], inside: frozenset[int]) -> tuple[str, ...]:
    """The layers that are called inside and nowhere else, in graph order."""
    outside = {node.layer for node in nodes if node.index not in inside}
    return tuple(dict.fromkeys(nodes[i].layer for i in sorted(inside) if nodes[i].layer not in outside))


def _host(nodes: tuple[Node, ...], end: int) -> str:
    """The last layer of a branch; operations after it must leave zeros as they are."""
    node = nodes[end]
    while not node.layer:
        if len(node.inputs) != 1 or base_name(node.target) not in ZERO_TO_ZERO:
            return ""
        node = nodes[node.inputs[0]]
    return node.layer


def _stride(nodes: tuple[Node, ...], inside: frozenset[int], split: Node, end: Node) -> tuple[int, str]:
    """By how much the branch shrinks its input, and why that is not known."""
    if any(nodes[i].op not in {"same", "binary"} for i in inside if not nodes[i].layer):
        return 1, "holds operations that are not layers"
    if len(split.shape) != len(end.shape):
        return 1, "changes the number of axes"
    before, after = split.shape[2:], end.shape[2:]
    if len(split.shape) < 4:
        return (1, "") if before[:-1] == after[:-1] else (1, "changes the length of its input")
    stride = round(before[0] / after[0]) if after and after[0] else 1
    if all(-(-b // stride) == a for b, a in zip(before, after, strict=True)):
        return stride, ""
    return 1, f"turns {before} positions into {after}"


def _common_path(names: tuple[str, ...]) -> str:
    """The longest module path that all names share."""
    parts = [name.split(".")[:-1] for name in names]
    common = []
    for step in zip(*parts, strict=False):
        if len(set(step)) > 1:
            break
        common.append(step[0])
    return ".".join(common)
