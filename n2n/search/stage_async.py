"""One stage of a search whose rollouts wait for no other: students are judged as workers are free.

A batch that is learned from holds the rollouts that came back first, whoever made them; the policy may have learned
since, and what is done about that is said by the agent (`n2n.agents.reinforce`: truncated importance sampling). Which
rollouts come back first is up to the clock, so two such searches with one seed are not the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from envs import Goal, GoalVectorEnv
from envs.goals import NO_GOAL, always
from n2n.agents.base import Agent, Patient, Trajectory, rollout
from n2n.evaluate.base import Evaluation
from n2n.evaluate.flight import Flight
from n2n.search.errors import SearchError
from n2n.search.limits import Limits, Meter
from n2n.search.progress import Display
from n2n.search.stage import Book, Judge, StageResult, StageReward, ended, nothing_stored, remark
from n2n.search.store import Store
from search_spaces.base import Architecture, SearchSpace

Refuse = Callable[[Architecture], Evaluation | None]


@dataclass
class _Rollouts:
    """The rollouts under way, by student, and those that came back: each a trajectory of one, and the student's."""

    space: SearchSpace
    flight: Flight
    agent: Agent
    refuse: Refuse | None
    goal: Goal
    known: dict[str, Evaluation] = field(default_factory=dict)
    away: dict[str, list[Trajectory]] = field(default_factory=dict)
    back: list[tuple[Trajectory, Evaluation, bool]] = field(default_factory=list)

    def start(self) -> None:
        """Makes one rollout; its student is handed in where nobody knows it."""
        made: list[Architecture] = []

        def later(students: Sequence[Architecture]) -> list[Architecture]:
            made.extend(students)
            return list(students)

        env = GoalVectorEnv(self.space, later, lambda student, goal: 0.0, 1, always(self.goal))
        trajectory, _ = rollout(env, self.agent)
        assert isinstance(self.agent, Patient)
        trajectory = replace(trajectory, behaviour=self.agent.behaviour(trajectory))
        (student,) = made
        key = student.fingerprint
        if key in self.known:
            self.back.append((trajectory, self.known[key], True))
        elif key in self.away:
            self.away[key].append(trajectory)
        elif self.refuse is not None and (record := self.refuse(student)) is not None:
            self._enter(record, [trajectory])
        else:
            self.away[key] = [trajectory]
            self.flight.add(student)

    def collect(self) -> None:
        """Waits for a student that is under way."""
        for found in self.flight.next():
            self._enter(found, self.away.pop(found.fingerprint))

    def _enter(self, found: Evaluation, waiting: list[Trajectory]) -> None:
        self.known[found.fingerprint] = found
        self.back += [(trajectory, found, index > 0) for index, trajectory in enumerate(waiting)]

    def take(self, many: int) -> list[tuple[Trajectory, Evaluation, bool]]:
        """The first that came back."""
        taken, self.back = self.back[:many], self.back[many:]
        return taken


def run_stage_async(
    name: str,
    space: SearchSpace,
    flight: Flight,
    reward: StageReward,
    agent: Agent,
    *,
    rollouts: int,
    limits: Limits,
    store: Store,
    curve: Path,
    display: Display,
    reserve: Callable[[float], float] = lambda mean_seconds: 0.0,
    refuse: Refuse | None = None,
    goal: Goal = NO_GOAL,
) -> StageResult:
    """Rolls out, remembers, learns, without waiting for the slowest of a batch; see `run_stage` for the arguments.

    Args:
        flight: judges the students.
        refuse: the record of a student that is not worth judging.

    Raises:
        SearchError: the agent cannot learn from rollouts that are not its latest; or as for `run_stage`.
        WriteError: the file system refused.
    """
    if not isinstance(agent, Patient):
        raise SearchError(f"{type(agent).__name__} learns from its latest rollouts only, so it cannot search async")
    meter = Meter(limits)
    book = Book(name, Judge(lambda students: []), reward, meter, store, curve, nothing_stored)
    under_way = _Rollouts(space, flight, agent, refuse, goal)
    updates, stopped = 0, ""
    display.begin(name, limits.evaluations)
    try:
        while not stopped:
            _fill(under_way, meter, flight.slots, rollouts)
            if len(under_way.back) < rollouts and under_way.away:
                begun = time.perf_counter()
                under_way.collect()
                book.judge.seconds += time.perf_counter() - begun
                continue
            _learn(under_way.take(rollouts), book, agent)
            updates += 1
            display.update(meter.evaluations, *remark(book.records))
            stopped = meter.reached(reserve(meter.seconds / max(1, meter.evaluations)))
    except KeyboardInterrupt:
        stopped = "interrupted"
        _store(under_way.take(len(under_way.back)), book)
        if book.batch:
            book.draw({})
    return ended(book, agent, space, display, updates=updates, stopped=stopped)


def _fill(under_way: _Rollouts, meter: Meter, slots: int, rollouts: int) -> None:
    """Starts rollouts while workers are free, a batch is not full, and students may still be judged."""
    while len(under_way.away) < slots and len(under_way.back) < rollouts:
        new = sum(not known for _, _, known in under_way.back)
        if len(under_way.away) + new >= meter.left:
            return
        before = len(under_way.away) + len(under_way.back)
        under_way.start()
        if len(under_way.away) + len(under_way.back) == before:
            return  # a repeat of a student that is under way: more of them would only pile up behind it


def _store(taken: list[tuple[Trajectory, Evaluation, bool]], book: Book) -> None:
    book.judge.pending = [(found, known) for _, found, known in taken]
    book.enter()


def _learn(taken: list[tuple[Trajectory, Evaluation, bool]], book: Book, agent: Agent) -> None:
    """Stores a batch, then learns from it."""
    iteration = book.meter.batches
    _store(taken, book)
    book.check()
    pieces = [trajectory for trajectory, _, _ in taken]
    noted = [piece.behaviour for piece in pieces if piece.behaviour is not None]
    rewards = torch.tensor([book.reward(found, iteration) for _, found, _ in taken], dtype=torch.float32)
    batch = Trajectory(
        observations=torch.cat([piece.observations for piece in pieces], dim=1),
        legal=torch.cat([piece.legal for piece in pieces], dim=1),
        actions=torch.cat([piece.actions for piece in pieces], dim=1),
        rewards=rewards,
        behaviour=torch.cat(noted, dim=1) if len(noted) == len(pieces) else None,
    )
    book.draw(agent.learn(batch))
