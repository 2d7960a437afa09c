"""What each layer of a student stands for: the value of the teacher that its output should be.

A surviving layer does the work of those that were removed behind it, as far as the next place where values are joined
or taken by other weights. With a removed layer between them, what a consumer takes stands for what the consumer takes
in the teacher; a residual branch stands for the teacher's state after the add, less what the student's shortcut brings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from search_spaces.teacher.analysis import Reading
from search_spaces.teacher.inherit import entries
from search_spaces.teacher.operations import WEIGHTS, base_name
from search_spaces.teacher.removal import Shape
from search_spaces.teacher.trace import Node

SCALES = frozenset({"batch_norm", "group_norm", "layer_norm"})
"""Rules of layers with a scale and a shift for each channel."""
IDENTITIES = frozenset(
    ["dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "clone", "contiguous", "detach", "alias"]
)
"""Elementwise operations that change nothing in eval mode."""


@dataclass(frozen=True)
class Less:
    """What is taken from a target: the student's own value at a node, and what stands there in the teacher."""

    student: int
    teacher: int


@dataclass(frozen=True, eq=False)
class Target:
    """What one surviving layer should give.

    `node` is the teacher's value, `keep` [out] its entries along `axis` that the student has, `less` what is to be
    taken from it. `norm` is the batch norm right behind the layer that is solved together with it, or empty. `reason`
    says why the layer has no target (empty: it has one).
    """

    layer: str
    norm: str
    node: int
    axis: int
    keep: torch.Tensor
    less: tuple[Less, ...]
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Targets:
    """The targets of a student's layers, in the order in which the layers run in the teacher.

    `enters` and `leaves` name the node of the student whose value a layer takes and gives, for layers called once.
    """

    layers: tuple[Target, ...]
    enters: Mapping[str, int]
    leaves: Mapping[str, int]

    @property
    def axes(self) -> dict[int, int]:
        """The values of the teacher that are asked for, each with the axis of its channels."""
        solved = [one for one in self.layers if not one.reason]
        return {one.node: one.axis for one in solved} | {less.teacher: one.axis for one in solved for less in one.less}


def targets(reading: Reading, shape: Shape, keep: torch.Tensor) -> Targets:
    """The targets of a student.

    Args:
        reading: of the teacher.
        shape: the student's skeleton.
        keep: the classes of channels [classes] of bool that the student keeps (`inherit.kept_classes`).
    """
    student = _Student(reading, shape)
    found, enters, leaves = [], {}, {}
    for layer in reading.layers:
        if layer.name in shape.removed or any(index in student.skipped for index in layer.nodes):
            continue
        node = reading.nodes[layer.nodes[0]]
        if len(layer.nodes) == 1 and len(node.inputs) == 1:
            enters[layer.name], leaves[layer.name] = student.stands(node.inputs[0]), node.index
        if node.op in WEIGHTS or node.op in SCALES:
            found.append(_target(student, layer.name, layer.nodes, keep))
    absorbed = {one.norm for one in found}
    return Targets(tuple(one for one in found if one.layer not in absorbed), enters, leaves)


class _Student:
    """The graph of a student, in the nodes of the teacher."""

    def __init__(self, reading: Reading, shape: Shape) -> None:
        self.reading, self.shape = reading, shape
        self.skipped = frozenset[int]().union(*(branch.nodes for branch in shape.emptied))
        self._passes = {branch.add: branch.shortcut for branch in shape.emptied if branch.add not in self.skipped}
        self._stands: dict[int, int] = {}
        self.users: dict[int, list[tuple[Node, int]]] = {}
        for node in reading.nodes:
            if node.index in self.skipped or node.layer in shape.removed or node.index in self._passes:
                continue
            for index in dict.fromkeys(node.inputs):
                self.users.setdefault(self.stands(index), []).append((node, index))

    def stands(self, index: int) -> int:
        """The node whose value the student has where the teacher has that of `index`."""
        found = self._stands.get(index)
        if found is None:
            node = self.reading.nodes[index]
            before = node.inputs[0] if node.layer in self.shape.removed else self._passes.get(index)
            found = self._stands[index] = index if before is None else self.stands(before)
        return found


def _target(student: _Student, name: str, calls: tuple[int, ...], keep: torch.Tensor) -> Target:
    reading, shape = student.reading, student.shape
    node = reading.nodes[calls[0]]
    nothing = torch.zeros(0, dtype=torch.long)
    ends, full = shape.plan.ends.get(name), reading.full.ends.get(name)
    reason = ""
    if ends is None or full is None:
        reason = "its channels are not followed"
    elif len(calls) > 1:
        reason = "is called more than once"
    elif node.op in {"embedding", "conv_transpose"}:
        reason = f"is of a kind that is not solved for ({node.op})"
    elif len(ends.outgoing.classes) != len(full.outgoing.classes):
        reason = "its channels stand for none of the teacher's"
    if reason or ends is None:
        return Target(name, "", node.index, 1, nothing, (), reason)
    norm, value, less = _follow(student, node)
    return Target(name, norm, value, ends.outgoing.axis, entries(keep, ends.outgoing), less)


def _follow(student: _Student, node: Node) -> tuple[str, int, tuple[Less, ...]]:
    """The batch norm that goes with a layer, the teacher's value that it should give, and what is taken from that.

    The way leads through adds, and through activations as far as layers were removed behind them: what an activation
    takes is then what the last one of those takes in the teacher.
    """
    nodes, at, norm = student.reading.nodes, node.index, ""
    value, less = node.index, tuple[Less, ...]()
    acted = shifted = False
    while True:
        users = student.users.get(at, [])
        taken = {index for _, index in users}
        if len(taken) != 1:
            return norm, value, less
        index = taken.pop()
        if nodes[index].shape != node.shape:
            return norm, value, less
        shifted = shifted or index != at
        if not acted:
            value = index
        if len(users) != 1:
            return norm, value, less
        user = users[0][0]
        if user.op == "binary" and not acted and _adds(nodes, user):
            other = next(i for i in user.inputs if i != index)
            less = (*less, Less(student.stands(other), other))
            value = user.index
        elif user.op == "batch_norm" and at == node.index and node.op in WEIGHTS and _solvable(student, user):
            norm, value = user.layer, user.index
        elif user.op in SCALES and acted and shifted:
            pass  # it is solved for by itself; what is behind it tells what this layer stands for
        elif user.op == "same" and base_name(user.target) in IDENTITIES:
            pass
        elif user.op == "same" and (shifted or not acted):
            value, acted, shifted = index, True, False
        else:
            return norm, value, less
        at = user.index


def _adds(nodes: tuple[Node, ...], user: Node) -> bool:
    """Whether a node is the plain sum of two values of one shape."""
    shapes = {nodes[i].shape for i in user.inputs}
    return base_name(user.target) in {"add", "iadd"} and len(set(user.inputs)) == 2 and shapes == {user.shape}


def _solvable(student: _Student, user: Node) -> bool:
    """Whether a norm is an affine map for each channel, called once."""
    if not user.layer or len(student.reading.calls[user.layer]) > 1:
        return False
    module = student.reading.network.get_submodule(user.layer)
    batch = isinstance(module, nn.modules.batchnorm._BatchNorm)
    return batch and bool(module.affine) and isinstance(module.running_mean, torch.Tensor)
