"""One stage of a search: an agent plays rollouts in a space until a limit is reached."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from envs import StudentVectorEnv
from n2n.agents.base import Agent, rollout
from n2n.evaluate.base import Evaluate, Evaluation, Status
from n2n.search.errors import WriteError
from n2n.search.limits import Limits, Meter
from n2n.search.progress import Display
from n2n.search.store import Record, Store
from search_spaces.base import Architecture, SearchSpace

CURVE_COLUMNS = (
    "stage",
    "iteration",  # rollout batch within the stage, from 0
    "evaluations",  # students judged in this stage so far, without repeats
    "hits",  # answers from the cache so far
    "seconds",  # since the stage began
    "mean_reward",
    "max_reward",  # of this batch
    "best_reward",  # so far in this stage
    "loss",
    "entropy",
    "baseline",
    "gradient_norm",
)
StageReward = Callable[[Evaluation, int], float]
"""The reward of an evaluation in an iteration."""


@dataclass
class Judge:
    """An evaluator that keeps the time spent in it and knows which students it has met before."""

    evaluate: Evaluate
    seconds: float = 0.0
    seen: set[str] = field(default_factory=set)
    repeats: list[bool] = field(default_factory=list)

    def __call__(self, students: Sequence[Architecture]) -> list[Evaluation]:
        """Judges a batch; `repeats` then says of each student whether the run had met it before."""
        begun = time.perf_counter()
        try:
            judged = self.evaluate(students)
        finally:
            self.seconds += time.perf_counter() - begun
        self.repeats = []
        for one in judged:
            self.repeats.append(one.fingerprint in self.seen)
            self.seen.add(one.fingerprint)
        return judged


@dataclass(frozen=True)
class StageResult:
    """What a stage left: its judgements, its agent's weights (empty for agents without), and its accounts.

    `seconds` is wall time, `judging` the part of it inside the evaluator; `stopped` is the limit that ended it, or
    "interrupted".
    """

    name: str
    records: tuple[Record, ...]
    state: Mapping[str, Tensor]
    updates: int
    num_actions: int
    num_decisions: int
    evaluations: int
    hits: int
    seconds: float
    judging: float
    stopped: str


def run_stage(
    name: str,
    space: SearchSpace,
    evaluate: Evaluate,
    reward: StageReward,
    agent: Agent,
    *,
    rollouts: int,
    limits: Limits,
    store: Store,
    curve: Path,
    display: Display,
    reserve: Callable[[float], float] = lambda mean_seconds: 0.0,
) -> StageResult:
    """Rolls out, remembers, learns, until a limit is reached or the user interrupts.

    Args:
        rollouts: students per batch; the last batch is smaller where the budget of evaluations ends within it.
        curve: a CSV file that gets one row for each batch.
        reserve: from the mean seconds of one judgement to the seconds to keep for what follows the stage.
    """
    judge, meter = Judge(evaluate), Meter(limits)
    records: list[Record] = []
    updates = 0
    display.begin(name, limits.evaluations)
    stopped = ""
    try:
        while not stopped:
            batch, stats = _iterate(name, space, judge, reward, agent, min(rollouts, meter.left), meter, store)
            records += batch
            updates += 1
            _append(curve, _curve_row(name, batch, records, meter, stats))
            display.update(meter.evaluations, _remark(records))
            stopped = meter.reached(reserve(judge.seconds / max(1, meter.evaluations)))
    except KeyboardInterrupt:
        stopped = "interrupted"
    display.note(
        f"{name}: {meter.evaluations} students judged, {meter.hits} repeats, {meter.seconds:.1f} s, "
        f"stopped by {stopped}"
    )
    return StageResult(
        name=name,
        records=tuple(records),
        state=agent.state(),
        updates=updates,
        num_actions=space.num_actions,
        num_decisions=space.num_decisions,
        evaluations=meter.evaluations,
        hits=meter.hits,
        seconds=meter.seconds,
        judging=judge.seconds,
        stopped=stopped,
    )


def _iterate(
    name: str,
    space: SearchSpace,
    judge: Judge,
    reward: StageReward,
    agent: Agent,
    students: int,
    meter: Meter,
    store: Store,
) -> tuple[list[Record], Mapping[str, float]]:
    """One batch: roll out, store, learn. What was judged is on disk before the agent changes."""
    iteration = meter.batches
    env = StudentVectorEnv(space, judge, lambda one: reward(one, iteration), students)
    trajectory, evaluations = rollout(env, agent)
    rewards = [float(value) for value in trajectory.rewards]
    batch = [
        Record(name, iteration, value, repeat, one)
        for value, repeat, one in zip(rewards, judge.repeats, evaluations, strict=True)
    ]
    store.add(batch)
    hits = sum(judge.repeats)
    refused = sum(one.evaluation.status is Status.INVALID for one in batch if not one.cached)
    meter.spend(judged=len(batch) - hits - refused, hits=hits)  # a refusal costs nothing, so it is not counted
    return batch, agent.learn(trajectory)


def _curve_row(
    name: str, batch: list[Record], records: list[Record], meter: Meter, stats: Mapping[str, float]
) -> list[object]:
    rewards = [one.reward for one in batch]
    numbers = [
        sum(rewards) / len(rewards),
        max(rewards),
        max(one.reward for one in records),
        *(stats.get(key, math.nan) for key in ("loss", "entropy", "baseline", "gradient_norm")),
    ]
    counts = [name, meter.batches - 1, meter.evaluations, meter.hits, f"{meter.seconds:.3f}"]
    return [*counts, *("" if math.isnan(value) else f"{value:.6g}" for value in numbers)]


def _append(path: Path, row: Sequence[object]) -> None:
    """Appends a row, after the header where the file is new: a run that is cut off keeps its curve."""
    try:
        fresh = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if fresh:
                writer.writerow(CURVE_COLUMNS)
            writer.writerow(row)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}; earlier rows are safe") from error


def _remark(records: list[Record]) -> str:
    best = max(records, key=lambda one: one.reward)
    accuracy, parameters = best.evaluation.accuracy, best.evaluation.parameters
    if accuracy is None or parameters is None:
        return f"best reward {best.reward:.3f}"
    return f"best reward {best.reward:.3f} (accuracy {accuracy:.2%}, {parameters / 1e6:.4g} M parameters)"
