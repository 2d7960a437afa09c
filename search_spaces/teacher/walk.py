"""What a walk over the graph gathers: channels, which of them must stay together, and which must stay as they are."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from search_spaces.teacher.flows import Flow, Ints, WidthConflict
from search_spaces.teacher.trace import Node


@dataclass
class Walk:
    """The state of one walk; `widths` are the teacher's output widths of layers with weights.

    `distrusted` are nodes whose sizes were found not to follow the channels. `suspects` are the flows that reach a node
    which may or may not follow them. A `member` is a layer with its role ("producer", "scale") and its channels.
    """

    nodes: tuple[Node, ...]
    widths: dict[str, int]
    removed: frozenset[str]
    distrusted: dict[int, str]
    births: list[tuple[int, str]] = field(default_factory=list)
    size: int = 0
    ties: list[tuple[Ints, Ints]] = field(default_factory=list)
    frozen: list[tuple[Ints, str]] = field(default_factory=list)
    divided: list[tuple[Ints, int]] = field(default_factory=list)
    members: list[tuple[str, str, Flow]] = field(default_factory=list)
    ends: dict[str, tuple[Flow, Flow]] = field(default_factory=dict)
    suspects: list[tuple[int, Flow]] = field(default_factory=list)

    def new(self, axis: int, width: int, name: str, frozen: str = "") -> Flow:
        """Channels that begin here."""
        flow = Flow(axis, np.arange(self.size, self.size + width))
        self.births.append((self.size, name))
        self.size += width
        if frozen:
            self.frozen.append((flow.atoms, frozen))
        return flow

    def tie(self, first: Ints, second: Ints) -> None:
        """Entry by entry, channels that go or stay together."""
        if len(first) != len(second):
            raise WidthConflict(f"{len(first)} channels meet {len(second)}")
        if first is not second:
            self.ties.append((first, second))

    def tie_rows(self, grid: Ints) -> Ints:
        """Ties each row of a grid [rows, columns] to the first one, which is returned."""
        for row in grid[1:]:
            self.tie(grid[0], row)
        return np.ascontiguousarray(grid[0])

    def divide(self, flow: Flow, blocks: int) -> None:
        """Whatever is kept, each of `blocks` equal blocks keeps equally many entries."""
        if len(flow) % blocks:
            raise WidthConflict(f"{len(flow)} channels do not divide into {blocks} groups")
        self.divided.append((flow.atoms, blocks))

    def shape(self, index: int) -> tuple[int, ...]:
        """The teacher's shape of a node, with batch."""
        return self.nodes[index].shape

    def whole(self, flow: Flow, index: int) -> bool:
        """Whether a node's channels are as many as the teacher's."""
        return len(flow) == self.shape(index)[flow.axis]

    def hold(self, flow: Flow | None, index: int, node: Node, reason: str) -> None:
        """Freezes what node `index` gave, for a place that insists on the teacher's width."""
        if flow is None:
            return
        if not self.whole(flow, index):
            raise WidthConflict(f"{node.target} at {node.line} expects {self.shape(index)[flow.axis]} channels")
        self.frozen.append((flow.atoms, reason))

    def suspect(self, node: Node, flow: Flow) -> Flow:
        """Channels that a node follows only if its sizes are not constants; that is found by trying."""
        self.suspects.append((node.index, flow))
        return flow
