"""The graph of operations that a pass leaves behind, as autograd keeps it: what follows what, and on which paths."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.autograd.graph import Node


def sources(node: Node) -> list[Node]:
    """The operations that one takes its inputs from, once for each input; constants have none."""
    return [source for source, _ in node.next_functions if source is not None]


def inputs_first(output: Node) -> list[Node]:
    """All operations below the output, each after those that it takes its inputs from."""
    order: dict[Node, None] = {}
    stack = [(output, False)]
    while stack:
        node, ready = stack.pop()
        if ready:
            order[node] = None
        elif node not in order:
            stack.append((node, True))
            stack.extend((source, False) for source in sources(node) if source not in order)
    return list(order)


def leaf_of(node: Node) -> Tensor | None:
    """The tensor that a gradient ends in at this node: a parameter, or an input; None at an operation."""
    leaf: Tensor | None = getattr(node, "variable", None)
    return leaf


def paths_before(order: Sequence[Node], leaf: Tensor) -> dict[Node, int]:
    """How many paths lead from the leaf to each operation; the order is that of `inputs_first`."""
    before = dict.fromkeys(order, 0)
    for node in order:
        before[node] = 1 if leaf_of(node) is leaf else sum(before[source] for source in sources(node))
    return before


def paths_after(order: Sequence[Node], output: Node) -> dict[Node, int]:
    """How many paths lead from each operation to the output."""
    after = dict.fromkeys(order, 0)
    after[output] = 1
    for node in reversed(order):
        for source in sources(node):
            after[source] += after[node]
    return after
