"""The trials under Ray Tune: in parallel, tried again where one dies, ended early where a scheduler says so."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, final

from n2n.evaluate.ray_cluster import ray_running
from n2n.search.progress import Display
from n2n.sweep.rows import Ending, is_begun, is_finished
from n2n.sweep.shown import Line, Show
from n2n.sweep.trials import SweepError, Trial

Scheduler = Literal["none", "asha"]
STUDENTS, BEST, ENDED, WHY = "students", "best_reward", "ended", "why"
"""What a trial reports: students judged, the best reward so far, and at its end how it ended."""
LOWEST = -1.0
"""The reward of a student that could not be judged; what a trial reports before its first batch."""
REDUCTION = 2
"""ASHA lets one in that many trials go on at each of its rungs."""


class TrialError(ValueError):
    """A search cannot do what it was asked for; it is not tried again."""


class Start(Protocol):
    """Runs one search, or goes on with it; it travels to Ray's workers, so it must be serialisable."""

    def __call__(self, settings: Mapping[str, Any], *, out: Path, shared: Path, resume: bool, display: Display) -> None:
        """Runs the search of `settings` in the folder `out`.

        Args:
            shared: a folder for files of judgements that trials share.
            resume: go on with the run in `out`; otherwise what is in `out` is left over and replaced.
            display: is told of every batch.

        Raises:
            TrialError: what is asked for cannot be done.
        """
        ...


@final
class Reports:
    """A display that tells `report` how many students the whole search has judged, and the best reward so far."""

    def __init__(self, report: Callable[[int, float], None]) -> None:
        self._report = report
        self._earlier = self._here = 0
        self.best = LOWEST

    @property
    def students(self) -> int:
        """Judged so far, in all stages."""
        return self._earlier + self._here

    def begin(self, name: str, total: int) -> None:
        """The next stage counts from 0."""
        self._earlier, self._here = self.students, 0

    def update(self, done: int, remark: str = "", best: float | None = None) -> None:
        """Reports a batch of judgements; the steps of the long distillation are none."""
        if best is not None:
            self._here, self.best = done, max(self.best, best)
            self._report(self.students, self.best)

    def note(self, text: str) -> None:
        """Is in the log of the run."""

    def close(self) -> None:
        """Nothing to clear."""


@dataclass(frozen=True)
class Plan:
    """How trials are run; see `n2n.sweep.run.sweep`."""

    trials_at_once: int
    cpus_per_trial: int
    gpus_per_trial: float
    scheduler: Scheduler
    retries: int
    storage: str
    kept: bool
    address: str | None = None


def run_trials(
    trials: Sequence[Trial],
    start: Start,
    *,
    folder: Path,
    shared: Path,
    name: str,
    plan: Plan,
    most_students: int,
    watch: Watch,
) -> None:
    """Runs the trials, each in its folder below `folder`, and returns when all have ended or the user interrupted.

    Args:
        name: of the experiment below the plan's storage.
        most_students: that any of the trials may judge.
        watch: is told what happens.

    Raises:
        SweepError: Ray cannot write to the plan's storage.
        PoolError: nobody answers at the plan's address.
    """
    with ray_running(plan.trials_at_once * plan.cpus_per_trial, address=plan.address), _quiet():
        from ray import tune

        trainable = tune.with_resources(
            tune.with_parameters(_trial, start=start, trials={one.name: one for one in trials}, folder=folder,
                                 shared=shared, kept=plan.kept),
            {"cpu": plan.cpus_per_trial, "gpu": plan.gpus_per_trial},
        )  # fmt: skip
        try:
            tuner = tune.Tuner(
                trainable,
                param_space={"trial": tune.grid_search([{"name": one.name, **one.varied} for one in trials])},
                tune_config=tune.TuneConfig(
                    max_concurrent_trials=plan.trials_at_once,
                    scheduler=_scheduler(plan.scheduler, most_students),
                    trial_name_creator=_name,
                    trial_dirname_creator=_name,
                    reuse_actors=True,  # the next trial need not wait for torch to be imported
                ),
                run_config=tune.RunConfig(
                    name=name,
                    storage_path=plan.storage,
                    failure_config=tune.FailureConfig(max_failures=plan.retries),
                    callbacks=[_callback(watch)],
                    verbose=0,
                ),
            )
        except (OSError, ValueError) as error:
            raise SweepError(
                f"storage = {plan.storage}: Ray cannot write there ({error}); name a path, or a URI such as s3://bucket/x"
                " whose credentials are set up"
            ) from error
        tuner.fit()


def _trial(
    config: Mapping[str, Any], *, start: Start, trials: Mapping[str, Trial], folder: Path, shared: Path, kept: bool
) -> None:
    """Runs inside a Ray worker. Whatever an earlier attempt left in the run folder is gone on with."""
    from ray import tune

    trial = trials[config["trial"]["name"]]
    out = folder / trial.name
    shown = Reports(lambda students, best: tune.report({STUDENTS: students, BEST: best}))
    told: dict[str, Any] = {ENDED: "finished", WHY: ""}
    if not is_finished(out):
        try:
            start(trial.settings, out=out, shared=shared, resume=is_begun(out), display=shown)
        except TrialError as error:
            told = {ENDED: "failed", WHY: str(error)}
    copy = tune.Checkpoint.from_directory(str(out)) if kept and told[ENDED] == "finished" else None
    tune.report({STUDENTS: shown.students, BEST: shown.best, **told}, checkpoint=copy)


def _scheduler(which: Scheduler, most_students: int) -> Any:
    """None runs the trials in order. ASHA compares them at a quarter, at half, and at all of the students.

    One that has judged all of them goes on, to the long distillation, where it is among the better ones there too.
    """
    if which == "none":
        return None
    from ray.tune.schedulers import ASHAScheduler

    return ASHAScheduler(
        time_attr=STUDENTS,
        metric=BEST,
        mode="max",
        grace_period=max(1, most_students // 4),
        max_t=most_students,
        reduction_factor=REDUCTION,
        stop_last_trials=False,
    )


def _name(trial: Any) -> str:
    return str(trial.config["trial"]["name"])


@final
class Watch:
    """What is known of the trials while they run; `changed` is called with the endings each time that one changes."""

    def __init__(self, lines: Sequence[Line], show: Show, changed: Callable[[Mapping[str, Ending]], None]) -> None:
        self._lines = {one.name: one for one in lines}
        self._show, self._changed = show, changed
        self.endings: dict[str, Ending] = {}
        self._show.show(lines)

    def begun(self, name: str) -> None:
        """A trial runs, for the first time or again."""
        self._end(name, Ending("running"))

    def reported(self, name: str, result: Mapping[str, Any]) -> None:
        """A trial has judged a batch, or has ended by itself."""
        if result[STUDENTS] >= self._lines[name].students:  # a trial that is tried again begins at 0
            best = result[BEST] if result[STUDENTS] else None
            self._lines[name] = replace(self._lines[name], students=result[STUDENTS], best=best)
        if ENDED in result:
            self._end(name, Ending(result[ENDED], result[WHY]))
        else:
            self._show.show([*self._lines.values()])

    def completed(self, name: str) -> None:
        """A trial is over: by itself, which it has reported, or because the scheduler ended it."""
        if self.endings[name].state == "running":
            students = self._lines[name].students
            self._end(name, Ending("stopped", f"ended by the scheduler after {students} students: others are better"))

    def died(self, name: str, why: str) -> None:
        """A trial has failed as often as it may."""
        self._end(name, Ending("failed", why))

    def _end(self, name: str, ending: Ending) -> None:
        self.endings[name] = ending
        self._lines[name] = replace(self._lines[name], state=ending.state)
        self._changed(self.endings)
        self._show.show([*self._lines.values()])


def _callback(watch: Watch) -> Any:
    from ray import tune

    class Told(tune.Callback):
        """Passes on what Tune tells; made here because its parent is Ray's."""

        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            watch.begun(_name(trial))

        def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
            watch.reported(_name(trial), result)

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            watch.completed(_name(trial))

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            log = Path(trial.error_file or "")  # Ray's own `get_error` looks where it is copied to later
            watch.died(_name(trial), last_line(log.read_text(encoding="utf-8") if log.is_file() else ""))

        def __reduce__(self) -> tuple[Any, tuple[()]]:
            """Tune pickles its callbacks to go on with an experiment later, which a sweep does another way."""
            return tune.Callback, ()

    return Told()


def last_line(text: str) -> str:
    """The last line of a traceback that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "the process of the trial died; its log is in Ray's folder"


@contextmanager
def _quiet() -> Iterator[None]:
    """No talk of Ray Tune's on the screen; what trials say of errors is in the sweep's tables."""
    logger = logging.getLogger("ray")
    level = logger.level
    wanted = {"RAY_AIR_NEW_OUTPUT": "0", "TUNE_PRINT_ALL_TRIAL_ERRORS": "0", "RAY_CHDIR_TO_TRIAL_DIR": "0"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
