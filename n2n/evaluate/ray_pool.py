"""Judging students in parallel processes, with the results of judging them one after the other."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self, final

import torch

from n2n.evaluate.base import Evaluate, Evaluation, Status, not_ok
from search_spaces.base import Architecture, SearchSpace


class _Worker:
    """Runs inside a Ray actor: the evaluators of all rungs, its own threads."""

    def __init__(self, make_evaluates: Callable[[], Mapping[str, Evaluate]], threads: int) -> None:
        torch.set_num_threads(threads)
        self._evaluates = make_evaluates()

    def judge(self, student: Architecture, rung: str) -> Evaluation:
        return self._evaluates[rung]([student])[0]


@contextmanager
def ray_running(workers: int) -> Iterator[None]:
    """A local Ray for that many workers, shared by all pools inside; nothing for 0 workers, or where Ray runs already.

    Starting Ray takes seconds, so whoever opens several pools in a row wraps them in this.
    """
    if workers == 0:
        yield
        return
    import ray

    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


@final
class RayPool:
    """See `ray_pool`. `close()` ends the workers (and Ray, where the pool started it)."""

    def __init__(
        self,
        make_evaluates: Callable[[], Mapping[str, Evaluate]],
        workers: int,
        threads: int,
        space: SearchSpace | None,
        prepare: Callable[[], None] | None,
    ) -> None:
        self._make_evaluates, self._count, self._threads = make_evaluates, workers, threads
        self._space, self._prepare = space, prepare
        self._opened = ExitStack()
        self._workers: list[Any] = []

    def _start(self) -> None:
        """Starts the workers, within the first judgement, as an evaluator in this process does what it does once."""
        import ray

        self._opened.enter_context(ray_running(self._count))
        if self._prepare is not None:
            self._prepare()
        # A worker that the system killed is replaced below; the student that killed it is not tried again.
        self._actor: Any = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_Worker)
        self._arguments = (ray.put(self._make_evaluates), self._threads)
        self._workers = [self._actor.remote(*self._arguments) for _ in range(self._count)]

    def __call__(self, students: Sequence[Architecture], rung: str = "") -> list[Evaluation]:
        """One evaluation each, in the same order; every worker takes the next student as soon as it is free."""
        import ray

        if not self._workers:
            self._start()
        waiting = list(enumerate(students))[::-1]
        running: dict[Any, tuple[int, Any]] = {}
        results: dict[int, Evaluation] = {}
        free = list(self._workers)
        while waiting or running:
            while waiting and free:
                index, student = waiting.pop()
                worker = free.pop()
                running[worker.judge.remote(student, rung)] = (index, worker)
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            index, worker = running.pop(done)
            results[index] = self._result(done, students[index], worker)
            free.append(worker if worker in self._workers else self._workers[-1])
        return [results[index] for index in range(len(students))]

    def _result(self, done: Any, student: Architecture, worker: Any) -> Evaluation:
        import ray
        from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

        try:
            evaluation: Evaluation = ray.get(done)
        except RayTaskError as error:
            # An error inside the evaluator is a bug there: it is raised here as it would be without workers.
            raise error.cause from error
        except (RayActorError, OutOfMemoryError) as error:
            self._workers = [one for one in self._workers if one is not worker]
            self._workers.append(self._actor.remote(*self._arguments))
            reason = f"the worker died while judging it, most likely out of memory: {error}"
            if self._space is None:
                raise RuntimeError(
                    f"student {student.fingerprint}: {reason}. Use fewer workers, or pass space= to ray_pool so that"
                    " such a student is recorded as FAILED"
                ) from error
            cost = self._space.cost(student)
            return not_ok(Status.FAILED, reason, student, cost, seconds=0.0, seed=0, fidelity="ray worker died")
        return evaluation

    def close(self) -> None:
        """Ends the workers; a pool that is used again starts new ones."""
        if self._workers:
            import ray

            for worker in self._workers:
                ray.kill(worker)
        self._workers = []
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


def ray_pool(
    make_evaluate: Callable[[], Evaluate],
    *,
    workers: int,
    threads: int | None = None,
    space: SearchSpace | None = None,
    prepare: Callable[[], None] | None = None,
) -> RayPool:
    """Spreads every batch over `workers` local processes, each with an evaluator of its own.

    A student's judgement depends on the run's seed and the student alone, so at equal `threads` the results are those
    of the evaluator itself, bit for bit.

    Args:
        make_evaluate: called once in every worker; it and what it holds travel there, so it must be serialisable.
        workers: number of processes.
        threads: of torch in each; the machine's cores over `workers` by default.
        space: the students' space; with it a student whose worker was killed is recorded as FAILED.
        prepare: called once in this process before the workers start, so that what it computes travels to them.

    Raises:
        ValueError: fewer than one worker or thread.
    """
    return RayPool(partial(_alone, make_evaluate), workers, _threads(workers, threads), space, prepare)


@contextmanager
def ray_pools(
    make_evaluates: Callable[[], Mapping[str, Evaluate]],
    names: Sequence[str],
    *,
    workers: int,
    threads: int | None = None,
    space: SearchSpace | None = None,
    prepare: Callable[[], None] | None = None,
) -> Iterator[dict[str, Evaluate]]:
    """Several evaluators, by name, that share the same workers; see `ray_pool`.

    Args:
        make_evaluates: called once in every worker.
        names: the keys of what it gives.
    """
    with RayPool(make_evaluates, workers, _threads(workers, threads), space, prepare) as pool:
        yield {name: partial(pool, rung=name) for name in names}


def _alone(make_evaluate: Callable[[], Evaluate]) -> Mapping[str, Evaluate]:
    return {"": make_evaluate()}


def _threads(workers: int, threads: int | None) -> int:
    each = max(1, (os.cpu_count() or 1) // max(1, workers)) if threads is None else threads
    if workers < 1 or each < 1:
        raise ValueError(f"ray_pool needs one worker and one thread at least; got workers={workers}, threads={each}")
    return each
