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
            self._run(
                self._crew, sorted(alike.values(), key=lambda one: -work[one.fingerprint]), rung, work, judged, keep
            )
        finally:  # nothing is under way unless this was interrupted, or an evaluator raised an error
            judged.update({one.fingerprint: one for one in self._crew.abandon()})
        return [judged[student.fingerprint] for student in students]

    def _run(
        self,
        crew: Crew,
        students: Sequence[Architecture],
        rung: str,
        work: Mapping[str, float],
        judged: dict[str, Evaluation],
        keep: Callable[[Evaluation], None],
    ) -> None:
        """Has all students judged, and enters each into `judged` as soon as it is."""

        def enter(found: Evaluation) -> None:
            judged[found.fingerprint] = found
            keep(found)

        waiting = deque(students)
        losses: dict[str, list[Lost]] = {}
        while len(judged) < len(students):
            while waiting and crew.free:
                student = waiting.popleft()
                crew.give(student, rung, self._pace.limit(rung, work[student.fingerprint]))
            for task, found in crew.next():
                key = task.student.fingerprint
                if not isinstance(found, Lost):
                    enter(found)
                    if found.status is Status.OK:  # others take no time, or end early
                        self._pace.enter(rung, work[key], found.seconds)
                    continue
                losses.setdefault(key, []).append(found)
                if len(losses[key]) <= self._options.retries:
                    waiting.append(task.student)  # behind the others, which it shall not hold up
                else:
                    enter(self._given_up(task.student, losses[key]))

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
