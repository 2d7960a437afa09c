"""Residual branches: what runs beside a shortcut and ends in an add."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import networkx as nx

from search_spaces.teacher.operations import WEIGHTS, ZERO_TO_ZERO, base_name
from search_spaces.teacher.outlines import Outline
from search_spaces.teacher.trace import Node

_WEIGHTLESS = frozenset({"same", "pool"})


@dataclass(frozen=True)
class Branch:
    """A residual branch.

    `add` is the node that joins it, `shortcut` the node whose value remains when the branch is gone, `split` the node
    where both begin. `layers` lie wholly inside; `weights` are those of them with weights. `host` is the layer in whose
    place zeros are produced when the branch is gone, `stride` how much smaller its result is than its input.
    `reason` says why the branch cannot be emptied (empty: it can). `units` are composite modules that go as wholes with
    the branch (the host may be one), because they hold operations that are not layers, such as attention; `parameters`
    and `macs` are what goes with them beside their layers. `passes` says that the host is the module of branch,
    shortcut and add alike, which then gives its input instead of zeros.
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
    units: Mapping[str, Outline] = field(default_factory=dict)
    parameters: int = 0
    macs: int = 0
    passes: bool = False


def graph_of(nodes: tuple[Node, ...]) -> nx.DiGraph:
    """The nodes as a directed graph under one root, -1, above all inputs."""
    graph = nx.DiGraph()
    graph.add_node(-1)
    for node in nodes:
        graph.add_node(node.index)
        for source in node.inputs or (-1,):
            graph.add_edge(source, node.index)
    return graph


def find_branches(
    nodes: tuple[Node, ...], graph: nx.DiGraph, composites: Mapping[str, Outline] | None = None
) -> tuple[Branch, ...]:
    """All residual branches, in the order of their adds.

    `composites` are the modules that may go as wholes.
    """
    graphs = (graph, _learned_graph(nodes))
    dominators = [nx.immediate_dominators(each, -1) for each in graphs]
    users = {node.index: set(graph.successors(node.index)) for node in nodes}
    found = []
    for node in nodes:
        if node.op == "binary" and base_name(node.target) == "add" and len(set(node.inputs)) == 2:
            tried = (_branch(nodes, each, users, node, int(above[node.index]), composites or {})
                     for each, above in zip(graphs, dominators, strict=True))  # fmt: skip
            branch = next((branch for branch in tried if branch is not None), None)
            if branch is not None:
                found.append(branch)
    names = Counter(branch.name for branch in found)
    return tuple(
        branch if branch.name and names[branch.name] == 1 else replace(branch, name=branch.host or f"add {branch.add}")
        for branch in found
    )


def _learned_graph(nodes: tuple[Node, ...]) -> nx.DiGraph:
    """The graph without what no layer has touched (masks, positions), where that meets what layers have."""
    learned: set[int] = set()
    graph = nx.DiGraph()
    graph.add_node(-1)
    for node in nodes:
        sources = [i for i in node.inputs if i in learned] or list(node.inputs) or [-1]
        if node.layer or not learned.isdisjoint(sources):
            learned.add(node.index)
        graph.add_edges_from((source, node.index) for source in sources)
    return graph


def _side(graph: nx.DiGraph, end: int, split: int) -> frozenset[int]:
    """The nodes on the ways from `split`, which dominates `end`, to `end`."""
    seen, waiting = set(), [end]
    while waiting:
        index = waiting.pop()
        if index > split and index not in seen:
            seen.add(index)
            waiting.extend(graph.predecessors(index))
    return frozenset(seen)


def _branch(
    nodes: tuple[Node, ...],
    graph: nx.DiGraph,
    users: Mapping[int, set[int]],
    add: Node,
    split: int,
    composites: Mapping[str, Outline],
) -> Branch | None:
    if split < 0 or len(set(graph.predecessors(add.index))) < 2:
        return None
    sides = [_side(graph, end, split) for end in add.inputs]
    if sides[0] & sides[1]:
        return None
    weights = [sum(nodes[i].op in WEIGHTS for i in side) for side in sides]
    longer = 0 if (weights[0], len(sides[0])) >= (weights[1], len(sides[1])) else 1
    inside, end = sides[longer], add.inputs[longer]
    if not weights[longer] or any(users[i] - inside - {add.index} for i in inside):
        return None
    layers = _whole_layers(nodes, inside)
    weighted = tuple(name for name in layers if any(n.layer == name and n.op in WEIGHTS for n in nodes))
    stride, reason = _stride(nodes, inside, nodes[split], nodes[end])
    units = dict.fromkeys(inside, "")
    host = _host(nodes, end, layers, units)
    if reason or not host or any(nodes[i].op in WEIGHTS and not nodes[i].layer for i in inside):
        units = _units(nodes, inside, composites)
        host = _host(nodes, end, layers, units)
        rest = frozenset(i for i in inside if not units[i])
        stride, reason = _stride(nodes, rest, nodes[split], nodes[end])
        if not host:
            reason = f"ends in {nodes[end].target}, in whose place no zeros can be put"
        elif any(nodes[i].op in WEIGHTS and not nodes[i].layer for i in rest):
            reason = "holds weights that belong to no layer"
        elif any(composites[name].shape != nodes[split].shape for name in units.values() if name):
            reason = reason or "holds modules that change the size of their input"
        elif any(len(exits) > 1 for exits in _exits(units, users).values()):
            reason = reason or "holds modules that give several tensors"
    around = _residual_module(nodes, inside, add, split, composites) if reason else ""
    if around:
        host, stride, reason, units = around, 1, "", dict.fromkeys(inside, around)
    elsewhere = [nodes[i].layer for i in sorted(inside) if nodes[i].layer and nodes[i].layer not in layers]
    tied = [name for name in elsewhere if any(n.layer == name and n.op not in _WEIGHTLESS for n in nodes)]
    if tied:
        reason = reason or f"holds {tied[0]}, which is used elsewhere too"
    whole = {units[i]: composites[units[i]] for i in sorted(inside) if units[i]}
    return Branch(
        _common_path(weighted), add.index, split, add.inputs[1 - longer], inside, layers, weighted,
        host, stride, reason, whole, passes=bool(around),
    )  # fmt: skip


def _residual_module(
    nodes: tuple[Node, ...], inside: frozenset[int], add: Node, split: int, composites: Mapping[str, Outline]
) -> str:
    """The composite module that computes a branch and its add from the shortcut, and nothing else, or empty."""
    whole = inside | {add.index}
    if not {i for index in whole for i in nodes[index].inputs} <= whole | {split} or split not in add.inputs:
        return ""
    held: dict[str, set[int]] = {}
    for node in nodes:
        for path in node.modules:
            held.setdefault(path, set()).add(node.index)
    same = nodes[split].shape == add.shape
    return next((path for path in add.modules if same and path in composites and held[path] == whole), "")


def _units(nodes: tuple[Node, ...], inside: frozenset[int], composites: Mapping[str, Outline]) -> dict[int, str]:
    """For each node the largest composite module around it that runs nowhere but inside, or empty."""
    outside = {path for node in nodes if node.index not in inside for path in node.modules}
    return {
        i: next((path for path in nodes[i].modules if path in composites and path not in outside), "") for i in inside
    }


def _exits(units: Mapping[int, str], users: Mapping[int, set[int]]) -> dict[str, set[int]]:
    """The nodes of each unit whose values are used outside it."""
    found: dict[str, set[int]] = {name: set() for name in units.values() if name}
    for index, name in units.items():
        if name and any(units.get(user) != name for user in users[index]):
            found[name].add(index)
    return found


def _whole_layers(nodes: tuple[Node, ...], inside: frozenset[int]) -> tuple[str, ...]:
    """The layers that are called inside and nowhere else, in graph order."""
    outside = {node.layer for node in nodes if node.index not in inside}
    return tuple(dict.fromkeys(nodes[i].layer for i in sorted(inside) if nodes[i].layer not in outside))


def _host(nodes: tuple[Node, ...], end: int, layers: tuple[str, ...], units: Mapping[int, str]) -> str:
    """The last layer or unit of a branch; operations after it must leave zeros as they are."""
    node = nodes[end]
    while not (units.get(node.index) or node.layer in layers):
        if len(node.inputs) != 1 or node.index not in units or base_name(node.target) not in ZERO_TO_ZERO:
            return ""
        node = nodes[node.inputs[0]]
    return units.get(node.index) or node.layer


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
