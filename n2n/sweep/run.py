"""One sweep: what is left to do of it, Ray Tune, and its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from n2n.search.files import read_json, write_json
from n2n.search.lock import hold
from n2n.sweep.plot import plot_trials
from n2n.sweep.rows import ENDED, Ending, Row, is_finished, read_row
from n2n.sweep.shown import Line, Show
from n2n.sweep.table import PICTURE, write_tables
from n2n.sweep.trials import Trial
from n2n.sweep.tune import Plan, Scheduler, Start, Watch, run_trials

TRIALS, SHARED, RAY, STATES = "trials", "judged", "ray", "states.json"
"""In the folder of a sweep: the run folders, the files of judgements that they share, Ray Tune's logs, the endings."""


@dataclass(frozen=True)
class SweepResult:
    """What a sweep leaves; all of it is also in the folder `out`."""

    out: Path
    rows: tuple[Row, ...]

    @property
    def complete(self) -> bool:
        """Whether every trial finished, or was ended early as the scheduler is there to do."""
        return all(row.state in ENDED for row in self.rows)


def sweep(
    trials: Sequence[Trial],
    start: Start,
    *,
    out: Path,
    students: Mapping[str, int],
    trials_at_once: int = 2,
    cpus_per_trial: int = 1,
    gpus_per_trial: float = 0.0,
    scheduler: Scheduler = "none",
    retries: int = 2,
    storage: str | None = None,
    address: str | None = None,
    show: Show,
) -> SweepResult:
    """Runs the trials that have not ended, and writes the tables over all of them into `out`.

    Trials that were cut off, by whatever, are gone on with; trials that failed are tried again. An interrupt (Ctrl-C)
    ends the running trials where they stand, and the tables are written all the same.

    Args:
        trials: in the order of the tables.
        start: runs one search.
        students: how many each trial may judge, by its name.
        trials_at_once: the most that run in parallel.
        cpus_per_trial, gpus_per_trial: what Ray keeps for each.
        scheduler: "none", or "asha": of the trials that reach a quarter, half and all of the students, the better half
            by the best reward so far goes on.
        retries: how often a trial whose process dies is tried again.
        storage: a path or URI that Ray Tune writes its logs to, with a copy of every finished run folder; None writes
            the logs alone, to `out/ray`.
        address: of a running Ray cluster that shares the file system of `out`; None keeps to this machine.
        show: is told how the trials stand.

    Raises:
        WriteError: the file system refused.
        ArtefactError: a file of an earlier attempt is damaged, or another sweep is at work in `out`.
        SweepError: Ray cannot write to `storage`.
        PoolError: nobody answers at the address.
    """
    plan = Plan(
        trials_at_once=trials_at_once,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        scheduler=scheduler,
        retries=retries,
        storage=str(out / RAY) if storage is None else storage,
        kept=storage is not None,
        address=address,
    )
    with closing(show), hold(out):
        _attempt(trials, start, out, students, plan, show)
        return conclude(trials, out)


def _attempt(
    trials: Sequence[Trial], start: Start, out: Path, students: Mapping[str, int], plan: Plan, show: Show
) -> None:
    """Runs what is left of the trials."""
    endings, attempts = read_states(out)
    folder, shared = out / TRIALS, out / SHARED
    left = [one for one in trials if not over(one, folder, endings)]
    if not left:
        return
    for made in (folder, shared):
        made.mkdir(parents=True, exist_ok=True)
    save = partial(write_states, out, endings, attempts + 1)
    save({})
    lines = [_line(one, folder, endings, students[one.name]) for one in trials]
    run_trials(
        left,
        start,
        folder=folder,
        shared=shared,
        name=f"{out.name}-{attempts + 1}",
        plan=plan,
        most_students=max(students.values()),
        watch=Watch(lines, show, save),
    )


def conclude(trials: Sequence[Trial], out: Path) -> SweepResult:
    """The tables and the picture, from the run folders and the endings that are there.

    Raises:
        WriteError: the file system refused.
        ArtefactError: the endings are damaged.
    """
    endings, _ = read_states(out)
    rows = tuple(read_row(one, out / TRIALS / one.name, endings.get(one.name, Ending("waiting"))) for one in trials)
    write_tables(out, rows, f"n2n sweep --resume {out}")
    plot_trials(out / PICTURE, rows, out / TRIALS)
    return SweepResult(out, rows)


def over(trial: Trial, folder: Path, endings: Mapping[str, Ending]) -> bool:
    """Whether there is nothing left to do for a trial. Raises `ArtefactError` where its result is damaged."""
    ending = endings.get(trial.name)
    return is_finished(folder / trial.name) or (ending is not None and ending.state == "stopped")


def read_states(out: Path) -> tuple[dict[str, Ending], int]:
    """How the trials of earlier attempts ended, and how many attempts there were. Raises `ArtefactError`."""
    if not (out / STATES).is_file():
        return {}, 0
    kept = read_json(out / STATES, ("attempts", "trials"))
    return {name: Ending(**value) for name, value in kept["trials"].items()}, kept["attempts"]


def write_states(out: Path, earlier: Mapping[str, Ending], attempts: int, now: Mapping[str, Ending]) -> None:
    """Keeps how the trials ended, those of this attempt over those of earlier ones. Raises `WriteError`."""
    trials: dict[str, Any] = {name: asdict(one) for name, one in {**earlier, **now}.items()}
    write_json(out / STATES, {"attempts": attempts, "trials": trials})


def _line(trial: Trial, folder: Path, endings: Mapping[str, Ending], total: int) -> Line:
    if not over(trial, folder, endings):
        return Line(trial.name, total)
    row = read_row(trial, folder / trial.name, endings.get(trial.name, Ending("waiting")))
    return Line(trial.name, total, row.state, row.students, row.best_reward)
