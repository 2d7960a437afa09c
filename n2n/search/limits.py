"""When a search stops: at the first of its limits."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from n2n.search.errors import SearchError

REPEATS = 20
"""Rollout batches for each batch that the budget of evaluations pays for: a policy that only repeats itself ends."""


@dataclass(frozen=True)
class Limits:
    """The limits of one stage.

    `evaluations` counts students that were really judged (repeats answered from the cache are free), `seconds` is wall
    time, None for no limit; `batches` bounds the rollout batches, repeats included.

    Raises:
        SearchError: a limit that is not positive.
    """

    evaluations: int
    seconds: float | None
    batches: int

    def __post_init__(self) -> None:
        if self.evaluations < 1 or self.batches < 1:
            raise SearchError(
                f"limits must be at least 1: evaluations={self.evaluations}, batches={self.batches}; allow more of them"
            )
        if self.seconds is not None and self.seconds < 0:
            raise SearchError(f"seconds={self.seconds} is negative; give a positive number, or None for no limit")


def limits(evaluations: int, seconds: float | None, rollouts: int) -> Limits:
    """The limits of a stage that judges `rollouts` students at a time."""
    return Limits(evaluations, seconds, batches=REPEATS * max(1, -(-evaluations // rollouts)))


@dataclass
class Meter:
    """What a stage has spent so far, and whether it must stop."""

    limits: Limits
    clock: Callable[[], float] = time.perf_counter
    evaluations: int = 0
    hits: int = 0
    batches: int = 0
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock()

    @property
    def seconds(self) -> float:
        """Wall seconds since the stage began."""
        return self.clock() - self.started

    @property
    def left(self) -> int:
        """How many more students may be judged."""
        return self.limits.evaluations - self.evaluations

    def spend(self, *, judged: int, hits: int) -> None:
        """Counts one more batch."""
        self.evaluations += judged
        self.hits += hits
        self.batches += 1

    def reached(self, reserve: float = 0.0) -> str:
        """The name of the first limit that is reached, or ""; `reserve` seconds are kept for what follows."""
        if self.left <= 0:
            return "evaluations"
        if self.limits.seconds is not None and self.seconds + reserve >= self.limits.seconds:
            return "seconds"
        if self.batches >= self.limits.batches:
            return "repeats"
        return ""
