"""A panel: students spread over what removal and shrinkage can make of a teacher, deep as well as shallow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces.base import Architecture, Cost, SearchSpace, SpaceError, replay

CANDIDATES = 16
"""Drafts that are drawn for each place of the panel."""
KEEPING = (1.0, 0.85, 0.6, 0.4, 0.2)
"""With which probabilities the removal decisions of a candidate keep."""
SPREADS = (0.0, 0.0, 0.2)
"""How far the widths of a candidate scatter about their mean, as a share of the actions."""


@dataclass(frozen=True)
class Member:
    """One student of a panel: its cost, and the share of removal decisions that remove."""

    architecture: Architecture
    cost: Cost
    removed: float


def panel(
    removal: SearchSpace,
    shrinkage: Callable[[Architecture], SearchSpace],
    *,
    size: int,
    seed: int = 0,
    low: float = 0.03,
    high: float = 0.8,
) -> tuple[Member, ...]:
    """Students whose shares of the teacher's parameters are spread evenly on a logarithmic scale.

    Of the candidates for one place, in turn the deepest, the shallowest and the one in between is taken, so that depth
    and size do not go together.

    Args:
        removal: the space of removals over a teacher.
        shrinkage: opens the space of widths over a removal student.
        size: places in the panel; those that no candidate falls into stay empty.
        seed: of the draws.
        low, high: least and greatest share of the teacher's parameters.

    Raises:
        SpaceError: fewer than one place, shares that do not ascend within (0, 1), or no student in between.
    """
    if size < 1 or not 0 < low < high <= 1:
        raise SpaceError(f"panel: expected size >= 1 and 0 < low < high <= 1, found {size}, {low} and {high}")
    edges = np.geomspace(low, high, size + 1)
    places: list[dict[str, Member]] = [{} for _ in range(size)]
    for member in _candidates(removal, shrinkage, CANDIDATES * size, np.random.default_rng(seed)):
        place = int(np.searchsorted(edges, member.cost.parameters / removal.teacher_cost.parameters)) - 1
        if 0 <= place < size:
            places[place].setdefault(member.architecture.fingerprint, member)
    chosen = []
    for place, found in enumerate(places):
        ordered = sorted(found.values(), key=lambda one: one.removed)
        if ordered:
            chosen.append(ordered[(0, -1, len(ordered) // 2)[place % 3]])
    if not chosen:
        raise SpaceError(f"panel: no student was found between {low:.0%} and {high:.0%} of the teacher's parameters")
    return tuple(chosen)


STRIDE = 5
"""No multiple of three, by which depths alternate."""


def in_turn(members: Sequence[Member]) -> tuple[Member, ...]:
    """The same members in an order that sees all sizes and depths early, wherever it is cut off."""
    return tuple(member for start in range(STRIDE) for member in members[start::STRIDE])


def _candidates(
    removal: SearchSpace, shrinkage: Callable[[Architecture], SearchSpace], many: int, rng: np.random.Generator
) -> Iterator[Member]:
    """Students of all depths and widths, widths alike or scattered."""
    opened: dict[str, SearchSpace] = {}
    for _ in range(many):
        keep = float(rng.choice(KEEPING))
        last = removal.num_actions - 1
        actions = tuple(last if rng.random() < keep else 0 for _ in range(removal.num_decisions))
        start = removal.student(replay(removal, actions))
        space = opened.setdefault(start.fingerprint, shrinkage(start))
        mean, spread = rng.uniform(0, space.num_actions), float(rng.choice(SPREADS)) * space.num_actions
        wished = rng.normal(mean, spread, space.num_decisions) if spread else np.full(space.num_decisions, mean)
        widths = tuple(int(one) for one in wished.clip(0, space.num_actions - 1))
        student = space.student(replay(space, widths))
        gone = actions.count(0) / max(1, len(actions))
        yield Member(student, space.cost(student), gone)
