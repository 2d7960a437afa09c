"""The scores of random students, by which a run without training tells a high score from a low one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from n2n.evaluate.base import Evaluate, Evaluation, Status
from n2n.search.errors import SearchError
from search_spaces.base import Architecture, SearchSpace

REFERENCE = 16
"""Random students that are scored before a run begins."""
TRIES = 8
"""Draws for each of them: a small space may not have so many different students."""


def reference_scores(
    spaces: Sequence[SearchSpace],
    judge_of: Callable[[SearchSpace], Evaluate],
    *,
    seed: int,
    students: int = REFERENCE,
) -> tuple[float, ...]:
    """The scores, ascending, of random students of the spaces, as many of each.

    Args:
        spaces: of the stages that the run has.
        judge_of: scores the students of a space.
        seed: of the draws.
        students: in all; those that cannot be scored are left out.

    Raises:
        SearchError: none can be scored; the first reason is told.
    """
    rng, judged = np.random.default_rng(seed), list[Evaluation]()
    for space in spaces:
        judged += judge_of(space)(_drawn(space, max(1, students // len(spaces)), rng))
    scores = sorted(one.score for one in judged if one.status is Status.OK and one.score is not None)
    if not scores:
        reasons = [one.reason for one in judged if one.status is Status.FAILED] or [one.reason for one in judged]
        raise SearchError(
            f"none of {len(judged)} random students could be scored: {reasons[0] if reasons else 'there is no student'}"
        )
    return tuple(scores)


def _drawn(space: SearchSpace, many: int, rng: np.random.Generator) -> list[Architecture]:
    """Different random students, as many as are found."""
    found: dict[str, Architecture] = {}
    for _ in range(TRIES * many):
        student = space.random(rng)
        found.setdefault(student.fingerprint, student)
        if len(found) == many:
            break
    return list(found.values())
