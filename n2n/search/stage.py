"""One stage of a search: an agent plays rollouts in a space until a limit is reached."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from envs import Goal, GoalVectorEnv
from envs.goals import NO_GOAL, always
from n2n.agents.base import Agent, rollout
from n2n.evaluate.base import Evaluate, Evaluation, Status
from n2n.evaluate.cached import Keeping
from n2n.evaluate.prefilter import Prefilter
from n2n.networks.units import millions
from n2n.search.errors import SearchError, WriteError
from n2n.search.filtered import corrected, only_judged
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
    "judging",  # seconds of these inside the evaluator
    "mean_reward",
    "max_reward",  # of this batch
    "best_reward",  # so far in this stage
    "loss",
    "entropy",
    "baseline",
    "gradient_norm",
)


@dataclass(frozen=True)
class Stored:
    """A batch that an earlier attempt of the run had stored: its records, and the stage's seconds when it was drawn.

    `seconds` and `judging` are None where the attempt ended before it drew the batch; `last` is True where the stage
    ended with it, False where another batch followed, None where that is not known.
    """

    records: tuple[Record, ...]
    seconds: float | None = None
    judging: float | None = None
    last: bool | None = None


Replay = Callable[[str, int], Stored]
"""What an earlier attempt had stored of batch `iteration` of a stage."""


def nothing_stored(stage: str, iteration: int) -> Stored:
    """The replay of a run that begins."""
    return Stored(())


StageReward = Callable[[Evaluation, int], float]
"""The reward of an evaluation in an iteration."""


@dataclass
class Judge:
    """An evaluator that keeps the time spent in it and knows which students it has met before.

    `pending` are the evaluations of the last batch that nobody has stored yet, each with whether the run had met its
    student before; after an interrupt they are those that were finished by then.
    """

    evaluate: Evaluate
    seconds: float = 0.0
    seen: set[tuple[str, bool]] = field(default_factory=set)
    pending: list[tuple[Evaluation, bool]] = field(default_factory=list)

    def __call__(self, students: Sequence[Architecture]) -> list[Evaluation]:
        """Judges a batch."""
        begun = time.perf_counter()
        try:
            judged = self.evaluate(students)
        except KeyboardInterrupt:
            self._keep(self.evaluate.known(students) if isinstance(self.evaluate, Keeping) else [])
            raise
        finally:
            self.seconds += time.perf_counter() - begun
        self._keep(judged)
        return judged

    def _keep(self, judged: Sequence[Evaluation]) -> None:
        self.pending = []
        for one in judged:
            met = (one.fingerprint, one.filtered)  # one that was held back is judged for the first time later
            self.pending.append((one, met in self.seen))
            self.seen.add(met)


@dataclass(frozen=True)
class StageResult:
    """What a stage left: its judgements, its agent's weights (empty for agents without), and its accounts.

    `seconds` is wall time, `judging` the part of it inside the evaluator; `filtered` students were scored by a
    prefilter and never judged, so that `evaluations` does not count them; `stopped` is the limit that ended it, or
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
    filtered: int = 0


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
    replay: Replay = nothing_stored,
    goal: Goal = NO_GOAL,
) -> StageResult:
    """Rolls out, remembers, learns, until a limit is reached or the user interrupts.

    Args:
        rollouts: students per batch; the last batch is smaller where the budget of evaluations ends within it.
        curve: a CSV file that gets one row for each batch.
        reserve: from the mean seconds of one judgement to the seconds to keep for what follows the stage.
        replay: what an earlier attempt of the run has stored: its batches are played again, and none is stored twice.
        goal: what the observations say is asked for.

    Raises:
        SearchError: every student of the first batch failed for the same reason; what was judged is stored. Or the
            stage goes another way than the earlier attempt did.
        WriteError: the file system refused.
    """
    judge, meter = Judge(evaluate), Meter(limits)
    book = Book(name, judge, reward, meter, store, curve, replay)
    updates = 0
    display.begin(name, limits.evaluations)
    stopped = ""
    try:
        while not stopped:
            stored = replay(name, meter.batches)
            stats = _iterate(space, book, agent, min(rollouts, meter.left), goal)
            updates += 1
            book.go_on_from(stored)
            book.draw(stats)
            display.update(meter.evaluations, *remark(book.records))
            stopped = _end(meter.reached(reserve(judge.seconds / max(1, meter.evaluations))), stored)
    except KeyboardInterrupt:
        stopped = "interrupted"
        book.enter()
        if book.batch:  # judged, and perhaps learned from, but not drawn yet
            book.draw({})
    return ended(book, agent, space, display, updates=updates, stopped=stopped)


def _end(reached: str, stored: Stored) -> str:
    """Why the stage ends here, "" where it goes on: as the earlier attempt did, where that is known."""
    if stored.last is None:
        return reached
    return (reached or "seconds") if stored.last else ""


def same_batch(stored: Sequence[Record], batch: Sequence[Record], path: Path) -> bool:
    """Whether a batch is stored whole already; False for one that is new, or was cut off by an interrupt.

    Raises:
        SearchError: it holds other students or rewards now.
    """
    if len(stored) != len(batch):
        return False
    pairs = [(before.evaluation, now.evaluation) for before, now in zip(stored, batch, strict=True)]
    alike = all(before.fingerprint == now.fingerprint for before, now in pairs)
    if alike and any(before.rung != now.rung for before, now in pairs):
        return False  # it was interrupted on its way up the ladder
    if alike and [one.reward for one in stored] == [one.reward for one in batch]:
        return True
    raise SearchError(
        f"the resumed search goes another way than the run did in batch {batch[0].iteration} of {batch[0].stage}: was"
        f" the code, a package or the number of threads changed? What is stored in {path} stays as it is; start another"
        " run"
    )


def ended(book: Book, agent: Agent, space: SearchSpace, display: Display, *, updates: int, stopped: str) -> StageResult:
    """The result of a stage, told to the display, too."""
    meter = book.meter
    display.note(
        f"{book.name}: {meter.evaluations} students judged, {meter.hits} repeats, {meter.seconds:.1f} s, "
        f"stopped by {stopped}"
    )
    return StageResult(
        name=book.name,
        records=tuple(book.records),
        state=agent.state(),
        updates=updates,
        num_actions=space.num_actions,
        num_decisions=space.num_decisions,
        evaluations=meter.evaluations,
        hits=meter.hits,
        seconds=meter.seconds,
        judging=book.judge.seconds,
        stopped=stopped,
        filtered=len(
            {one.evaluation.fingerprint for one in book.records if one.evaluation.filtered}
            - {one.evaluation.fingerprint for one in book.records if not one.evaluation.filtered}
        ),
    )


@dataclass
class Book:
    """The records of a stage, in memory, in the store and as the learning curve."""

    name: str
    judge: Judge
    reward: StageReward
    meter: Meter
    store: Store
    curve: Path
    replay: Replay
    records: list[Record] = field(default_factory=list)
    batch: list[Record] = field(default_factory=list)

    def enter(self) -> None:
        """Stores what was judged and is not stored yet."""
        pending, iteration = self.judge.pending, self.meter.batches
        if not pending:
            return
        self.batch = [Record(self.name, iteration, self.reward(one, iteration), known, one) for one, known in pending]
        if not same_batch(self.replay(self.name, iteration).records, self.batch, self.store.path):
            self.store.replace(self.name, iteration, self.batch)
        self.judge.pending = []
        self.records += self.batch
        hits = sum(known for _, known in pending)
        free = sum(one.status is Status.INVALID or one.filtered for one, known in pending if not known)
        self.meter.spend(judged=len(pending) - hits - free, hits=hits)  # a refusal costs nothing: it is not counted

    def go_on_from(self, stored: Stored) -> None:
        """Counts the seconds that the earlier attempt had spent when it drew this batch."""
        if stored.seconds is not None and stored.judging is not None:
            self.meter.started = self.meter.clock() - stored.seconds
            self.judge.seconds = stored.judging

    def check(self) -> None:
        """Stops a stage in which nothing works: a cause that all students share must not pass for low rewards.

        Raises:
            SearchError: two or more students were judged, and all failed for the same reason, which is quoted.
        """
        tried = {one.evaluation.fingerprint: one.evaluation for one in self.records if not one.cached}
        held = {Status.INVALID, Status.OK}  # by a prefilter; one that cannot be scored has failed
        judged = [one for one in tried.values() if one.status not in (held if one.filtered else {Status.INVALID})]
        if len(judged) > 1 and {(one.status, one.reason) for one in judged} == {(Status.FAILED, judged[0].reason)}:
            raise SearchError(
                f"{self.name}: all of the first {len(judged)} students failed for the same reason, so the search was "
                f"stopped: {judged[0].reason}; what was judged is in {self.store.path}"
            )

    def draw(self, stats: Mapping[str, float]) -> None:
        """Appends the last batch to the learning curve, with what the agent says of its update."""
        _append(self.curve, _curve_row(self.name, self.batch, self.records, self.meter, self.judge.seconds, stats))
        self.batch = []


def _iterate(space: SearchSpace, book: Book, agent: Agent, students: int, goal: Goal) -> Mapping[str, float]:
    """One batch: roll out, store, learn. What was judged is on disk before the agent changes."""
    iteration = book.meter.batches
    prefilter = book.judge.evaluate if isinstance(book.judge.evaluate, Prefilter) else None
    many = students if prefilter is None else prefilter.many(students)
    env = GoalVectorEnv(space, book.judge, lambda one, _: book.reward(one, iteration), many, always(goal))
    trajectory, evaluations = rollout(env, agent)
    book.enter()
    book.check()
    if prefilter is None:
        return agent.learn(trajectory)
    if not prefilter.explore:
        return agent.learn(only_judged(trajectory, evaluations))
    draws = prefilter.draws
    known = [draws[one.fingerprint].expected if one.fingerprint in draws else one for one in evaluations]
    expected = [book.reward(one, iteration) for one in known]
    return agent.learn(corrected(trajectory, evaluations, draws, expected))


def judged(records: Sequence[Record]) -> Sequence[Record]:
    """Without those that a prefilter held back, where there are others: their rewards are no more than expected."""
    return [one for one in records if not one.evaluation.filtered] or records


def _curve_row(
    name: str, batch: list[Record], records: list[Record], meter: Meter, judging: float, stats: Mapping[str, float]
) -> list[object]:
    rewards = [one.reward for one in judged(batch)]
    numbers = [
        sum(rewards) / len(rewards),
        max(rewards),
        max(one.reward for one in judged(records)),
        *(stats.get(key, math.nan) for key in ("loss", "entropy", "baseline", "gradient_norm")),
    ]
    counts = [name, meter.batches - 1, meter.evaluations, meter.hits, f"{meter.seconds:.3f}", f"{judging:.3f}"]
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


def remark(records: list[Record]) -> tuple[str, float]:
    """The best so far, in words, and its reward."""
    best = max(judged(records), key=lambda one: one.reward)
    accuracy, parameters = best.evaluation.expected, best.evaluation.parameters
    if accuracy is None or parameters is None:
        return f"best reward {best.reward:.3f}", best.reward
    text = f"best reward {best.reward:.3f} (accuracy {accuracy:.2%}, {millions(parameters)} parameters)"
    return text, best.reward
