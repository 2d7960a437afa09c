"""The smallest students of a space: by formula where lower actions cost less, by descent where they may not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from search_spaces.base import Architecture, Cost, Draft, SearchSpace, SpaceError, random_actions, replay

SWEEPS = 4
"""How often a descent goes over all decisions at most."""
DRAFTS = 16
"""Random drafts from which the smallest starts one more descent."""


def smallest(space: SearchSpace) -> Architecture:
    """The student of the lowest legal action at every decision: for widths the smallest there is."""
    return space.student(replay(space, (0,) * space.num_decisions))


def descents(space: SearchSpace, cost: Callable[[Draft], Cost] | None = None) -> Iterator[Architecture]:
    """Small students of a space where fewer layers may cost more, for a removed bottleneck widens what reads it.

    From everything, from nothing and from a random draft, a decision changes wherever that makes the student smaller;
    first for the parameters, then for the MACs. `cost` is a space's own quick way from a finished draft to its cost,
    which raises `SpaceError` where the actions do not go together.
    """
    cost = cost or (lambda draft: space.cost(space.student(draft)))
    rng = np.random.default_rng(0)
    drafts = [random_actions(space, rng) for _ in range(DRAFTS)]
    ends = [replay(space, (action,) * space.num_decisions) for action in (space.num_actions - 1, 0)]
    sizes: tuple[Callable[[Cost], int], ...] = (lambda cost: cost.parameters, lambda cost: cost.macs)
    for size in sizes:
        of = partial(_size, cost, size)
        lucky = min(drafts, key=lambda draft: of(draft) or 0)
        for start in (*ends, lucky):
            yield space.student(_descend(space, start, of))


def _descend(space: SearchSpace, draft: Draft, size: Callable[[Draft], int | None]) -> Draft:
    """The finished draft after changing single decisions for as long as that makes its student smaller."""
    best = size(draft)
    for _ in range(SWEEPS):
        before = best
        for decision in range(space.num_decisions):
            for action in range(space.num_actions):
                if action == draft.actions[decision]:
                    continue
                actions = (*draft.actions[:decision], action, *draft.actions[decision + 1 :])
                found = size(Draft(actions))
                if found is not None and best is not None and found < best and _legal_from(space, actions, decision):
                    draft, best = Draft(actions), found
        if best == before:
            break
    return draft


def _size(cost: Callable[[Draft], Cost], size: Callable[[Cost], int], draft: Draft) -> int | None:
    """The size of a student, or None where its actions do not go together."""
    try:
        return size(cost(draft))
    except SpaceError:
        return None


def _legal_from(space: SearchSpace, actions: tuple[int, ...], first: int) -> bool:
    """Whether the actions from decision `first` on are legal; keeping is, so it is not asked."""
    keep = space.num_actions - 1
    return all(
        actions[at] == keep or bool(space.legal(Draft(actions[:at]))[actions[at]]) for at in range(first, len(actions))
    )
