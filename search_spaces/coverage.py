"""What spaces can do to a teacher: which layers their decisions reach, and between which costs their students lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from search_spaces.base import Architecture, Cost, LayerRow, SearchSpace
from search_spaces.smallest import descents, smallest

SAMPLES = 33
"""Random students whose median is the middle of a range."""
LONGEST_DESCENT = 200
"""Decisions up to which the smallest student is also sought by descent."""


@dataclass(frozen=True)
class LayerCoverage:
    """What may happen to one layer, over several spaces.

    `group` names the channels that leave it, `reads` those that come in, each where their number may change.
    `reasons` holds, for each space that leaves the layer as it is, the space's name and why, with the source line.
    """

    name: str
    kind: str
    parameters: int
    macs: int
    removable: bool
    group: str
    reads: str
    reasons: tuple[tuple[str, str], ...]

    @property
    def shrinkable(self) -> bool:
        """Whether a decision changes the shape of its weight: the channels that leave it, or those that come in."""
        return bool(self.group or self.reads)

    @property
    def status(self) -> str:
        """ "removable", "shrinkable", "both" or "frozen"."""
        if self.removable:
            return "both" if self.shrinkable else "removable"
        return "shrinkable" if self.shrinkable else "frozen"


@dataclass(frozen=True)
class Coverage:
    """The layers of a teacher with what may happen to each.

    `parameters` and `macs` are the teacher's in all. Shares are of its parameters, in [0, 1]; those outside layers are
    under no decision.
    """

    layers: tuple[LayerCoverage, ...]
    parameters: int
    macs: int

    @property
    def removal(self) -> float:
        """The share in layers that a removal decision can drop."""
        return self._share(layer for layer in self.layers if layer.removable)

    @property
    def shrinkage(self) -> float:
        """The share in layers whose weight a width (or kernel) decision reshapes."""
        return self._share(layer for layer in self.layers if layer.shrinkable)

    @property
    def either(self) -> float:
        """The share under some decision."""
        return self._share(layer for layer in self.layers if layer.status != "frozen")

    @property
    def none(self) -> float:
        """The share under no decision."""
        return 1.0 - self.either

    @property
    def outside(self) -> int:
        """Parameters that belong to no layer."""
        return max(0, self.parameters - sum(layer.parameters for layer in self.layers))

    @property
    def outside_macs(self) -> int:
        """MACs of operations that belong to no layer, such as matrix products of the user's own code."""
        return max(0, self.macs - sum(layer.macs for layer in self.layers))

    def _share(self, layers: Iterable[LayerCoverage]) -> float:
        # Layers that share a weight count it each, so that together they may hold more than the network does.
        whole = max(self.parameters, sum(layer.parameters for layer in self.layers))
        return sum(layer.parameters for layer in layers) / whole if whole else 0.0


@dataclass(frozen=True)
class Range:
    """Between which costs students lie: the least that was found, the median of random ones, the teacher.

    Each quantity stands by itself: the fewest parameters and the fewest MACs may be of different students. `smallest`
    has the fewest parameters.
    """

    low: Cost
    middle: Cost
    high: Cost
    smallest: Architecture


def coverage(*spaces: SearchSpace) -> Coverage:
    """What the decisions of spaces over one teacher reach, layer by layer, in the order of the first space."""
    rows: dict[str, list[tuple[str, LayerRow]]] = {}
    for space in spaces:
        for row in space.describe():
            rows.setdefault(row.name, []).append((space.name, row))
    layers = tuple(_layer(found) for found in rows.values())
    costs = [space.teacher_cost for space in spaces]
    return Coverage(layers, max(cost.parameters for cost in costs), max(cost.macs for cost in costs))


def _layer(rows: Sequence[tuple[str, LayerRow]]) -> LayerCoverage:
    """One layer from what each space says of it."""
    first = rows[0][1]
    return LayerCoverage(
        name=first.name,
        kind=first.kind,
        parameters=first.parameters,
        macs=first.macs,
        removable=any(row.status == "removable" for _, row in rows),
        group=next((row.group for _, row in rows if row.status == "shrinkable"), ""),
        reads=next((row.reads for _, row in rows if row.reads), ""),
        reasons=tuple((space, row.reason) for space, row in rows if row.reason),
    )


def cost_range(space: SearchSpace, *, samples: int = SAMPLES, seed: int = 0) -> Range:
    """Between which costs the students of a space lie; `samples` random ones are drawn by `seed` for the middle."""
    rng = np.random.default_rng(seed)
    drawn = [space.random(rng) for _ in range(samples)]
    tried = [smallest(space), *drawn]
    if 0 < space.num_decisions <= LONGEST_DESCENT:
        tried += descents(space)
    return range_of(space.teacher_cost, [(one, space.cost(one)) for one in tried], [space.cost(one) for one in drawn])


def chained_range(
    removal: SearchSpace,
    shrinkage: Callable[[Architecture | None], SearchSpace],
    *,
    samples: int = SAMPLES,
    seed: int = 0,
) -> Range:
    """Between which costs the students lie that are removed from first and shrunk then.

    `shrinkage` opens the space over a removal student, or over the teacher (None).
    """
    rng = np.random.default_rng(seed)
    starts = [None, smallest(removal)]
    if 0 < removal.num_decisions <= LONGEST_DESCENT:
        starts += descents(removal)
    opened = [shrinkage(start) for start in dict.fromkeys(starts)]
    tried = [(one, space.cost(one)) for space in opened for one in (smallest(space),)]
    for _ in range(samples):
        space = shrinkage(removal.random(rng))
        student = space.random(rng)
        tried.append((student, space.cost(student)))
    return range_of(removal.teacher_cost, tried, [cost for _, cost in tried[-samples:]])


def range_of(teacher: Cost, tried: Sequence[tuple[Architecture, Cost]], drawn: Sequence[Cost]) -> Range:
    """The range of students: the least of those that were `tried`, the median of those that were `drawn` at random."""
    costs = [cost for _, cost in tried]
    return Range(
        low=_each(costs, min),
        middle=_each(drawn, lambda values: round(median(values))),
        high=teacher,
        smallest=min(tried, key=lambda pair: pair[1].parameters)[0],
    )


def _each(costs: Sequence[Cost], choose: Callable[[list[int]], int]) -> Cost:
    """A cost whose quantities are chosen one by one."""
    return Cost(
        parameters=choose([cost.parameters for cost in costs]),
        macs=choose([cost.macs for cost in costs]),
        bytes=choose([cost.bytes for cost in costs]),
    )
