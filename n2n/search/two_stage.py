"""The search loop: removal on the teacher, then shrinkage on the best student that removal left.

The teacher stays the distiller and the baseline throughout: the evaluators that are passed in hold it, and the
shrinkage space still takes its weights from it. Reports, policies on disk and the test split belong to `n2n.main_job`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from n2n.agents.base import Agent
from n2n.evaluate.base import Evaluate, Evaluation, Status, not_ok
from n2n.evaluate.cached import refusing
from n2n.evaluate.flight import Flight
from n2n.reward import Budget
from n2n.search.errors import NoDecisionError
from n2n.search.limits import Limits
from n2n.search.options import SearchOptions
from n2n.search.progress import Display
from n2n.search.spaces import Spaces, goal_of, limits_of
from n2n.search.stage import Replay, StageResult, StageReward, nothing_stored, run_stage
from n2n.search.stage_async import run_stage_async
from n2n.search.store import Record, Store
from search_spaces.base import Architecture, SearchSpace, SpaceError
from search_spaces.limits import NO_LIMITS
from search_spaces.smallest import descents, smallest

LONGEST_RESERVE = 0.6
"""The largest share of the time limit that is kept for the long distillation."""


@dataclass(frozen=True)
class Rewards:
    """What a stage is rewarded by.

    `free` knows no budget; `bounded` adds the penalty that hardens with the iterations. Removal that shrinkage follows
    is rewarded freely: its students need not meet the budget, their shrunk versions must.
    """

    free: StageReward
    bounded: StageReward

    def of(self, stage: str, stages: tuple[str, ...]) -> StageReward:
        """The reward of a stage."""
        return self.bounded if stage == stages[-1] else self.free


@dataclass(frozen=True)
class Found:
    """What the loop found: its stages in order, the space of each, the wall seconds, and why it ended."""

    stages: tuple[StageResult, ...]
    spaces: Mapping[str, SearchSpace]
    seconds: float
    stopped: str

    @property
    def records(self) -> tuple[Record, ...]:
        """The judgements of all stages, in order."""
        return tuple(record for stage in self.stages for record in stage.records)

    @property
    def evaluations(self) -> int:
        """Students judged, repeats not counted."""
        return sum(stage.evaluations for stage in self.stages)

    @property
    def filtered(self) -> int:
        """Students that a prefilter scored and that were never judged."""
        return sum(stage.filtered for stage in self.stages)

    @property
    def hits(self) -> int:
        """Repeats that the cache answered."""
        return sum(stage.hits for stage in self.stages)

    @property
    def judging(self) -> float:
        """Seconds inside the evaluators."""
        return sum(stage.judging for stage in self.stages)

    @property
    def overhead(self) -> float:
        """The share of the wall time, in [0, 1], that was not spent in the evaluators."""
        return max(0.0, 1.0 - self.judging / self.seconds) if self.seconds > 0 else 0.0


def two_stage(
    spaces: Spaces,
    options: SearchOptions,
    *,
    open_judge: Callable[[SearchSpace], AbstractContextManager[Evaluate | Flight]],
    make_agent: Callable[[str, SearchSpace], Agent],
    rewards: Rewards,
    budget: Budget,
    out: Path,
    display: Display,
    finish_seconds: Callable[[float], float] = lambda mean_seconds: 0.0,
    spent: float = 0.0,
    replay: Replay = nothing_stored,
) -> Found:
    """Runs the stages and leaves `evaluations.sqlite` and `learning_curve.csv` in `out`.

    Args:
        open_judge: the judge of a space's students, open while its stage runs; a `Flight` where rollouts wait for no
            other.
        make_agent: the agent of a stage ("removal", "shrinkage") in its space.
        budget: what a student of the last stage may cost; the observations of all stages tell which share of the
            teacher's parameters and MACs it leaves.
        finish_seconds: from the mean seconds of one judgement to what the rest of the run will take after the loop.
        spent: seconds of the time limit that were gone before the loop.
        replay: what an earlier attempt of the run has stored.

    Raises:
        SearchError: all the first students of a stage failed for the same reason.
    """
    begun = time.perf_counter()
    done: list[StageResult] = []
    opened: dict[str, SearchSpace] = {}
    plan = options.stages
    interrupted = False
    with Store(out / "evaluations.sqlite") as store:
        for index, name in enumerate(plan):
            try:
                stages_left = len(plan) - index
                space = _open(name, spaces, done, opened, budget, last=stages_left == 1)
                opened[name], goal = space, goal_of(budget, space.teacher_cost)
                with open_judge(space) as judge:
                    doomed = stages_left > 1 and limits_of(budget) != NO_LIMITS
                    refuse = partial(hopeless, space, spaces, budget) if doomed else None
                    if isinstance(judge, Flight):
                        run = partial(run_stage_async, name, space, judge, refuse=refuse, goal=goal)
                    else:
                        evaluate = judge if refuse is None else refusing(judge, refuse)
                        run = partial(run_stage, name, space, evaluate, replay=replay, goal=goal)
                    stage = run(
                        rewards.of(name, plan),
                        make_agent(name, space),
                        rollouts=options.rollouts,
                        limits=_share(options, done, stages_left, spent + _elapsed(begun, done)),
                        store=store,
                        curve=out / "learning_curve.csv",
                        display=display,
                        reserve=_reserve(options, stages_left, finish_seconds),
                    )
                    done.append(stage)
                interrupted = stage.stopped == "interrupted"
            except NoDecisionError as error:
                display.note(f"{name} is left out: {error}")
            except KeyboardInterrupt:
                interrupted = True
            if interrupted:
                break
    stopped = "interrupted" if interrupted else done[-1].stopped if done else "no decision"
    return Found(tuple(done), opened, _elapsed(begun, done), stopped)


def _elapsed(begun: float, done: list[StageResult]) -> float:
    """Seconds of the loop, those of an earlier attempt included."""
    return max(time.perf_counter() - begun, sum(stage.seconds for stage in done))


def _share(options: SearchOptions, done: list[StageResult], stages_left: int, elapsed: float) -> Limits:
    """What is left, divided evenly among the stages that are left."""
    left = max(0, options.evaluations - sum(stage.evaluations for stage in done))
    seconds = None if options.seconds is None else max(0.0, (options.seconds - elapsed) / stages_left)
    return Limits(max(1, -(-left // stages_left)), seconds)


def _open(
    name: str,
    spaces: Spaces,
    done: list[StageResult],
    opened: Mapping[str, SearchSpace],
    budget: Budget,
    *,
    last: bool,
) -> SearchSpace:
    try:
        if name == "removal":
            return spaces.removal(budget if last else Budget())
        if not done:
            return spaces.shrinkage(None, budget)
    except SpaceError as error:
        raise NoDecisionError(str(error)) from error
    return best_start(opened["removal"], [one.evaluation for one in by_reward(done[-1].records)], spaces, budget)


def hopeless(removal: SearchSpace, spaces: Spaces, budget: Budget, student: Architecture) -> Evaluation | None:
    """The record of a removal student from which no shrinkage meets the budget; None for one worth judging."""
    try:
        spaces.shrinkage(student, budget)
    except SpaceError as error:
        if limits_of(budget).allow(removal.cost(student)):
            return None  # there is nothing to shrink, and no need
        reason = f"no shrinkage of it meets the budget: {error}"
        cost = removal.cost(student)
        return not_ok(Status.INVALID, reason, student, cost, seconds=0.0, seed=0, fidelity="not judged")
    return None


def by_reward(records: tuple[Record, ...]) -> list[Record]:
    """The records of judged students with status OK, best reward first, each student once."""
    judged = [one for one in records if one.evaluation.status is Status.OK and not one.evaluation.filtered]
    fine = {one.evaluation.fingerprint: one for one in judged}
    return sorted(fine.values(), key=lambda one: (-one.reward, one.evaluation.fingerprint))


def best_start(removal: SearchSpace, ranked: list[Evaluation], spaces: Spaces, budget: Budget) -> SearchSpace:
    """The shrinkage space of the best removal student that shrinkage can bring under the budget.

    Where none can be brought there, the teacher is tried, then the smallest students of the removal space.

    Raises:
        NoDecisionError: none of these can be shrunk under the budget.
    """
    judged = (removal.from_json(one.architecture) for one in ranked)
    reasons = []
    for start in chain[Architecture | None](judged, [None], [smallest(removal)], descents(removal)):
        try:
            return spaces.shrinkage(start, budget)
        except SpaceError as error:
            reasons.append(str(error))
    raise NoDecisionError(reasons[0])


def _reserve(
    options: SearchOptions, stages_left: int, finish_seconds: Callable[[float], float]
) -> Callable[[float], float]:
    """Seconds to keep: this stage's part of the finish, and the batch that would come next."""
    if options.seconds is None:
        return lambda mean_seconds: 0.0
    most = LONGEST_RESERVE * options.seconds

    def seconds(mean_seconds: float) -> float:
        return min(most, finish_seconds(mean_seconds)) / stages_left + options.rollouts * mean_seconds

    return seconds
