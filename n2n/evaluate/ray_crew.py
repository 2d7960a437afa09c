"""The workers of a pool: hired, opened, given a student, and replaced when they are lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from n2n.evaluate.base import Evaluate, Evaluation
from n2n.evaluate.pool_plan import Need, Plan, PoolError, PoolOptions, plan
from n2n.evaluate.ray_cluster import nodes
from search_spaces.base import Architecture

FAILED_STARTS = 5
"""Workers in a row that may die before they are ready, as when their node goes; then it is not the nodes' fault."""


@dataclass(frozen=True)
class Task:
    """A student in the hands of a worker: since when (`time.monotonic()`), and how many seconds it may take."""

    student: Architecture
    worker: Any
    since: float
    limit: float


@dataclass(frozen=True)
class Lost:
    """A worker was lost over a student: why, and after how many seconds."""

    reason: str
    seconds: float


@final
class Crew:
    """See the module. A worker has one student at a time, so that one that dies takes no other student with it.

    Attributes:
        plan: how many workers, and how many threads each.
        tasks: what is under way, by the reference of its result.
    """

    def __init__(
        self, make_evaluates: Callable[[], Mapping[str, Evaluate]], options: PoolOptions, worker: type
    ) -> None:
        """Starts the workers, and does not wait for them.

        Raises:
            PoolError: they do not fit.
        """
        import ray

        everything: Any = ray
        # Pickled here, not by `ray.put`: its size is known before anything starts, and every node holds it once.
        payload = np.frombuffer(everything.cloudpickle.dumps(make_evaluates), dtype=np.uint8)
        need = Need(payload.nbytes, options.room, options.gpus_per_worker)
        self.plan: Plan = plan(options, nodes(), need)
        self._payload = ray.put(payload)
        self._patience = options.start_seconds
        # A lost worker is replaced here, by another one, and not by Ray: so that it is known who was lost with it.
        resources = {"num_cpus": self.plan.threads, "num_gpus": need.gpus, "memory": need.memory}
        self._actor: Any = everything.remote(**resources, max_restarts=0, max_task_retries=0)(worker)
        self.tasks: dict[Any, Task] = {}
        self._idle: list[Any] = []
        self._opening: dict[Any, Any] = {}
        self._failed_starts = 0
        for _ in range(self.plan.workers):
            self._hire()

    def _hire(self) -> None:
        worker = self._actor.remote(self.plan.threads)
        self._opening[worker.open.remote(self._payload)] = worker

    @property
    def free(self) -> bool:
        """Whether a worker waits for a student."""
        return bool(self._idle)

    def wait_for_all(self) -> None:
        """Waits until all workers have started.

        Raises:
            PoolError: none of those that are left starts.
        """
        while self._opening:
            self.next()

    def give(self, student: Architecture, fidelity: str, limit: float) -> None:
        """Has a free worker judge the student within `limit` seconds."""
        worker = self._idle.pop()
        self.tasks[worker.judge.remote(student, fidelity)] = Task(student, worker, time.monotonic(), limit)

    def next(self) -> list[tuple[Task, Evaluation | Lost]]:
        """Waits until something happens: students that are done, or whose worker was lost or took too long.

        Raises:
            PoolError: no worker starts.
            Exception: what an evaluator raised.
        """
        import ray

        everything = [*self.tasks, *self._opening]
        deadlines = [task.since + task.limit for task in self.tasks.values()]
        if not deadlines:  # nobody has started yet, or all of them are waited for
            deadlines = [time.monotonic() + self._patience]
        patience = max(0.0, min(deadlines) - time.monotonic())
        done, _ = ray.wait(everything, num_returns=1, timeout=patience, fetch_local=False)
        if done:  # all that is done by now, so that a call costs the same however many workers there are
            done, _ = ray.wait(everything, num_returns=len(everything), timeout=0, fetch_local=False)
        elif not self.tasks:
            raise PoolError(
                f"no worker has started within {self._patience:g} s; expected {self.plan.workers} with"
                f" {self.plan.threads} cores each, on nodes that have {[one.cores for one in nodes()]} cores and"
                " perhaps other work: see `ray status`"
            )
        for one in [one for one in done if one in self._opening]:
            self._opened(one)
        found = [(task, self._taken(one, task)) for one in done if (task := self.tasks.pop(one, None)) is not None]
        return found + self._overdue()

    def _opened(self, done: Any) -> None:
        """Puts a worker that has started to the others, or hires another one."""
        import ray
        from ray.exceptions import RayTaskError

        worker = self._opening.pop(done)
        try:
            ray.get(done)
        except RayTaskError as error:
            raise error.cause from error
        except losses() as error:
            self._failed_starts += 1
            if self._failed_starts > FAILED_STARTS:
                raise PoolError(
                    f"{self._failed_starts} workers in a row died while they started, the last one because:"
                    f" {in_short(error)}. Use fewer workers, or look into Ray's logs (/tmp/ray/session_latest/logs)"
                ) from error
            self._hire()
        else:
            self._failed_starts = 0
            self._idle.append(worker)

    def _taken(self, done: Any, task: Task) -> Evaluation | Lost:
        """What came of a task that is over; a lost worker is replaced."""
        import ray
        from ray.exceptions import RayTaskError

        try:
            found: Evaluation = ray.get(done)
        except RayTaskError as error:
            # An error inside the evaluator is a bug there: it is raised here as it would be without workers.
            self._idle.append(task.worker)
            raise error.cause from error
        except losses() as error:
            self._replace(task.worker)
            return Lost(f"the worker died while judging it: {in_short(error)}", time.monotonic() - task.since)
        self._idle.append(task.worker)
        return found

    def _overdue(self) -> list[tuple[Task, Evaluation | Lost]]:
        """The tasks that have had their time; their workers are replaced."""
        now = time.monotonic()
        late = {one: task for one, task in self.tasks.items() if now >= task.since + task.limit}
        for one, task in late.items():
            del self.tasks[one]
            self._replace(task.worker)
        return [(task, Lost(f"it was not done within {task.limit:.3g} s", now - task.since)) for task in late.values()]

    def _replace(self, worker: Any) -> None:
        import ray

        ray.kill(worker)
        self._hire()

    def abandon(self) -> list[Evaluation]:
        """Ends what is under way, e.g. after an interrupt; gives what was done by then."""
        import ray
        from ray.exceptions import RayTaskError

        expected: tuple[type[Exception], ...] = (RayTaskError, *losses())
        over, _ = ray.wait(list(self.tasks), num_returns=len(self.tasks), timeout=0) if self.tasks else ([], [])
        found = []
        for one in over:
            task = self.tasks.pop(one)
            try:
                found.append(ray.get(one))
                self._idle.append(task.worker)
            except expected:  # something else is being raised already
                self._replace(task.worker)
        for task in self.tasks.values():
            self._replace(task.worker)
        self.tasks = {}
        return found

    def close(self) -> None:
        """Ends all workers."""
        import ray

        for worker in [*self._idle, *self._opening.values(), *(task.worker for task in self.tasks.values())]:
            ray.kill(worker)
        self._idle, self._opening, self.tasks = [], {}, {}


def losses() -> tuple[type[Exception], ...]:
    """What Ray raises for a worker that is gone: dead, killed for memory, or with its node."""
    from ray import exceptions as ray_errors

    lost: tuple[type[Exception], ...] = (
        ray_errors.RayActorError,
        ray_errors.OutOfMemoryError,
        ray_errors.WorkerCrashedError,
        ray_errors.NodeDiedError,
        ray_errors.ObjectLostError,
    )
    return lost


def in_short(error: Exception, length: int = 300) -> str:
    """Ray's words for why an actor died, without the ids before them, on one line."""
    words = " ".join(str(error).split())
    cause = words.find("The actor is dead because")
    return words[max(0, cause) :][:length]
