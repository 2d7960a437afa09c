"""Judging students in parallel processes, with the results of judging them one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from types import TracebackType
from typing import Self, final

from n2n.evaluate.base import Evaluate, Evaluation, Status, not_ok
from n2n.evaluate.pool_plan import RETRIES, TIMEOUT_FACTOR, TIMEOUT_FLOOR, Pace, PoolOptions
from n2n.evaluate.ray_cluster import ray_running
from n2n.evaluate.ray_crew import Crew, Lost
from n2n.evaluate.ray_worker import Worker
from search_spaces.base import Architecture, SearchSpace


@final
class RayPool:
    """See `ray_pool`. `close()` ends the workers (and Ray, where the pool started it).

    Students wait in one line, the largest first, and a worker that is free takes the next: long and short ones balance.
    """

    def __init__(
        self,
        make_evaluates: Callable[[], Mapping[str, Evaluate]],
        options: PoolOptions,
        *,
        space: SearchSpace | None,
        prepare: Callable[[], None] | None,
        images: Mapping[str, float],
        worker: type = Worker,
    ) -> None:
        """See `ray_pools`; `worker` is what runs in the processes, e.g. one that does nothing to time the pool by."""
        self._make_evaluates, self._options, self._worker = make_evaluates, options, worker
        self._space, self._prepare, self._images = space, prepare, images
        self._pace = Pace(factor=options.timeout_factor, floor=options.timeout_floor)
        self._opened = ExitStack()
        self._crew: Crew | None = None
        self._judged: dict[str, dict[str, Evaluation]] = {}

    def start(self) -> None:
        """Starts the workers and waits for all of them; otherwise the first batch starts them, and waits for one.

        Raises:
            PoolError: they do not fit, or do not start.
        """
        if self._crew is None:
            self._crew = self._start()
        self._crew.wait_for_all()

    def _start(self) -> Crew:
        """Starts the workers, within the first judgement, as an evaluator in this process does what it does once."""
        self._opened.enter_context(ray_running(self._options.workers, threads=self._options.threads))
        if self._prepare is not None:
            self._prepare()
        return Crew(self._make_evaluates, self._options, self._worker)

    def __call__(
        self,
        students: Sequence[Architecture],
        rung: str = "",
        keep: Callable[[Evaluation], None] = lambda one: None,
    ) -> list[Evaluation]:
        """One evaluation each, in the same order; one that comes twice is judged once.

        `keep` is called with each as soon as it is judged.

        Raises:
            PoolError: the workers do not fit, or none starts.
            RuntimeError: the pool has no `space`, and a student could not be judged.
        """
        judged = self._judged[rung] = {}
        work = {one.fingerprint: self._work(one, rung) for one in students}
        alike = {one.fingerprint: one for one in students}
        if not alike:
            return []
        if self._crew is None:
            self._crew = self._start()
        try:
            longest_first = sorted(alike.values(), key=lambda one: -work[one.fingerprint])
            self._run(self._crew, longest_first, rung, judged, keep)
        finally:  # nothing is under way unless this was interrupted, or an evaluator raised an error
            judged.update({one.fingerprint: one for one in self._crew.abandon()})
        return [judged[student.fingerprint] for student in students]

    def _run(
        self,
        crew: Crew,
        students: Sequence[Architecture],
        rung: str,
        judged: dict[str, Evaluation],
        keep: Callable[[Evaluation], None],
    ) -> None:
        """Has all students judged, and enters each into `judged` as soon as it is."""
        line = _Line(self, crew, rung)
        for student in students:
            line.add(student)
        while len(judged) < len(students):
            for found in line.next():
                judged[found.fingerprint] = found
                keep(found)

    def _work(self, student: Architecture, rung: str) -> float:
        """MACs that judging a student takes; 0 where there is no space to tell."""
        return 0.0 if self._space is None else self._space.cost(student).macs * self._images.get(rung, 1.0)

    def _given_up(self, student: Architecture, losses: Sequence[Lost]) -> Evaluation:
        """The record of a student that has cost too many workers."""
        reasons = "; ".join(dict.fromkeys(one.reason for one in losses))
        reason = f"given up after {len(losses)} attempts, each on another worker: {reasons}"
        if self._space is None:
            raise RuntimeError(
                f"student {student.fingerprint}: {reason}. Use fewer workers, or pass space= to ray_pool so that such a"
                " student is recorded as FAILED"
            )
        seconds = sum(one.seconds for one in losses)
        cost = self._space.cost(student)
        return not_ok(Status.FAILED, reason, student, cost, seconds=seconds, seed=0, fidelity="ray worker lost")

    def known(self, students: Sequence[Architecture], rung: str = "") -> list[Evaluation]:
        """The evaluations of those students that were judged in the last batch, e.g. before an interrupt."""
        judged = self._judged.get(rung, {})
        return [judged[one.fingerprint] for one in students if one.fingerprint in judged]

    def flight(self, rung: str = "") -> PoolFlight:
        """The pool as a judge that takes a student whenever a worker is free; see `n2n.evaluate.flight`."""
        return PoolFlight(self, rung)

    def close(self) -> None:
        """Ends the workers; a pool that is used again starts new ones."""
        if self._crew is not None:
            self._crew.close()
        self._crew = None
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


class _Line:
    """Students of one rung on their way through the crew: handed out, tried again where a worker is lost, given up."""

    def __init__(self, pool: RayPool, crew: Crew, rung: str) -> None:
        self._pool, self._crew, self._rung = pool, crew, rung
        self._waiting: deque[Architecture] = deque()
        self._losses: dict[str, list[Lost]] = {}

    def add(self, student: Architecture) -> None:
        """Puts a student at the end."""
        self._waiting.append(student)

    def next(self) -> list[Evaluation]:
        """What was judged meanwhile, or given up; waits a while where nothing was, and may give nothing."""
        pool, found = self._pool, []
        while self._waiting and self._crew.free:
            student = self._waiting.popleft()
            limit = pool._pace.limit(self._rung, pool._work(student, self._rung))
            self._crew.give(student, self._rung, limit)
        for task, outcome in self._crew.next():
            key = task.student.fingerprint
            if not isinstance(outcome, Lost):
                found.append(outcome)
                if outcome.status is Status.OK:  # others take no time, or end early
                    pool._pace.enter(self._rung, pool._work(task.student, self._rung), outcome.seconds)
                continue
            self._losses.setdefault(key, []).append(outcome)
            if len(self._losses[key]) <= pool._options.retries:
                self._waiting.append(task.student)  # behind the others, which it shall not hold up
            else:
                found.append(pool._given_up(task.student, self._losses[key]))
        return found


@final
class PoolFlight:
    """See `RayPool.flight`."""

    def __init__(self, pool: RayPool, rung: str) -> None:
        self._pool, self._rung = pool, rung
        self._line: _Line | None = None
        self.pending = 0

    @property
    def slots(self) -> int:
        """The workers; they are started here."""
        crew = self._crew()
        return crew.plan.workers

    def _crew(self) -> Crew:
        if self._pool._crew is None:
            self._pool._crew = self._pool._start()
        return self._pool._crew

    def add(self, student: Architecture) -> None:
        """Has a student judged as soon as a worker is free."""
        if self._line is None:
            self._line = _Line(self._pool, self._crew(), self._rung)
        self._line.add(student)
        self.pending += 1

    def next(self) -> list[Evaluation]:
        """The students that were judged since the last call, at least one; none where nobody is on the way."""
        found: list[Evaluation] = []
        while self._line is not None and self.pending and not found:
            found = self._line.next()
        self.pending -= len(found)
        return found


@final
class OneRung:
    """One of the evaluators that share a pool."""

    def __init__(self, pool: RayPool, rung: str) -> None:
        self._pool, self._rung = pool, rung

    def __call__(self, students: Sequence[Architecture]) -> list[Evaluation]:
        """One evaluation each, in the same order."""
        return self._pool(students, self._rung)

    def stream(self, students: Sequence[Architecture], keep: Callable[[Evaluation], None]) -> list[Evaluation]:
        """See `n2n.evaluate.cached.Streaming`."""
        return self._pool(students, self._rung, keep)

    def known(self, students: Sequence[Architecture]) -> list[Evaluation]:
        """See `RayPool.known`."""
        return self._pool.known(students, self._rung)


def ray_pool(
    make_evaluate: Callable[[], Evaluate],
    *,
    workers: int | str,
    threads: int | None = None,
    space: SearchSpace | None = None,
    prepare: Callable[[], None] | None = None,
    images: float = 1.0,
    gpus_per_worker: float = 0.0,
    retries: int = RETRIES,
    timeout_factor: float = TIMEOUT_FACTOR,
    timeout_floor: float = TIMEOUT_FLOOR,
    room: int = 0,
) -> RayPool:
    """Spreads every batch over `workers` processes, each with an evaluator of its own.

    They run in the Ray that runs already (or that `ray_running` has joined), else in one on this machine. A student's
    judgement depends on the run's seed and the student alone, so at equal `threads` the results are those of the
    evaluator itself, bit for bit. A student whose worker dies, is killed for its memory, goes with its node, or is not
    done in time, is tried again on another worker, and recorded as FAILED after `retries` more attempts.

    Args:
        make_evaluate: called once in every worker; it and what it holds travel there once, so it must be serialisable.
        workers: number of processes, or "auto" for as many as there is room for.
        threads: of torch in each; by default the cores shared out evenly, and one for "auto".
        space: the students' space; it predicts how long a student takes, and lets lost ones be recorded as FAILED.
        prepare: called once in this process before the workers start, so that what it computes travels to them.
        images: that are shown to a student (`Distillation.images_shown`): with its MACs they predict its seconds.
        gpus_per_worker: may be a fraction, e.g. 0.25 for four workers on one GPU.
        retries: how often a student is tried again.
        timeout_factor: how many times longer than predicted a student may take; see `n2n.evaluate.pool_plan.Pace`.
        timeout_floor: seconds that every student may take.
        room: bytes that a worker needs to train a student, besides teacher and data, which are counted.

    Raises:
        PoolError: a value out of its range.
    """
    options = PoolOptions(
        workers=workers,
        threads=threads,
        gpus_per_worker=gpus_per_worker,
        retries=retries,
        timeout_factor=timeout_factor,
        timeout_floor=timeout_floor,
        room=room,
    )
    return RayPool(partial(_alone, make_evaluate), options, space=space, prepare=prepare, images={"": images})


@contextmanager
def ray_pools(
    make_evaluates: Callable[[], Mapping[str, Evaluate]],
    images: Mapping[str, float],
    options: PoolOptions,
    *,
    space: SearchSpace | None = None,
    prepare: Callable[[], None] | None = None,
) -> Iterator[dict[str, Evaluate]]:
    """Several evaluators, by name, that share the same workers; see `ray_pool`.

    Args:
        make_evaluates: called once in every worker.
        images: by the names of what it gives, the images that are shown to a student.
        options: what is asked of the workers.
        space: the students' space.
        prepare: called once in this process before the workers start.
    """
    with RayPool(make_evaluates, options, space=space, prepare=prepare, images=images) as pool:
        yield {name: OneRung(pool, name) for name in images}


def _alone(make_evaluate: Callable[[], Evaluate]) -> Mapping[str, Evaluate]:
    return {"": make_evaluate()}
