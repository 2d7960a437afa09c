"""Judging without batches: a student is handed in whenever there is room, and comes back when it is judged."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol, final, runtime_checkable

from n2n.evaluate.base import Evaluate, Evaluation
from n2n.evaluate.memory import Memory
from search_spaces.base import Architecture


@runtime_checkable
class Flight(Protocol):
    """Students on their way through workers; the order in which they come back is that in which they are done."""

    @property
    def slots(self) -> int:
        """How many students are judged side by side."""
        ...

    @property
    def pending(self) -> int:
        """How many are on the way."""
        ...

    def add(self, student: Architecture) -> None:
        """Has a student judged."""
        ...

    def next(self) -> list[Evaluation]:
        """The students that were judged since the last call, at least one; none where nobody is on the way."""
        ...


@final
class InTurn:
    """A flight without workers: `slots` students wait, and come back in the order that `choose` picks. For tests.

    `choose` takes how many wait and gives the index of the one that is done first.
    """

    def __init__(self, evaluate: Evaluate, slots: int, choose: Callable[[int], int] = lambda waiting: 0) -> None:
        self._evaluate, self._choose = evaluate, choose
        self.slots = slots
        self._waiting: list[Architecture] = []

    @property
    def pending(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def add(self, student: Architecture) -> None:
        """Lets a student wait."""
        self._waiting.append(student)

    def next(self) -> list[Evaluation]:
        """Judges one."""
        if not self._waiting:
            return []
        return self._evaluate([self._waiting.pop(self._choose(len(self._waiting)))])


@final
class RememberedFlight:
    """A flight that asks a file first and keeps there what comes back; see `n2n.evaluate.memory`."""

    def __init__(self, flight: Flight, memory: Memory, *, recipe: str, seed: int) -> None:
        self._flight, self._memory, self._recipe, self._seed = flight, memory, recipe, seed
        self._known: deque[Evaluation] = deque()

    @property
    def slots(self) -> int:
        """Those of the flight."""
        return self._flight.slots

    @property
    def pending(self) -> int:
        """Those on the way, and those that the file answered."""
        return self._flight.pending + len(self._known)

    def add(self, student: Architecture) -> None:
        """Has a student judged that the file does not have."""
        found = self._memory.get(self._recipe, self._seed, [student.fingerprint])
        if found:
            self._known.append(found[student.fingerprint])
        else:
            self._flight.add(student)

    def next(self) -> list[Evaluation]:
        """What the file had at once, then what comes back."""
        if self._known:
            return [self._known.popleft()]
        judged = self._flight.next()
        self._memory.put(self._recipe, self._seed, judged)
        return judged
