"""`n2n sweep`: many searches from one file, run by Ray Tune, with tables over all of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from n2n.cli import options
from n2n.cli.config import ConfigError, SearchSettings
from n2n.cli.config import settings as validated
from n2n.cli.door import OK, REFUSALS, UNMET, Outcome, run, say
from n2n.cli.networks import chosen, trained
from n2n.cli.search import arguments, check_calibration, kept
from n2n.cli.sweep_config import SweepSettings, read_sweep, to_toml, trials_of
from n2n.data import example_inputs
from n2n.distill.teacher import fingerprint
from n2n.main_job import search as find_students
from n2n.report.tables import aligned
from n2n.search.files import write_text
from n2n.search.progress import Display
from n2n.sweep.run import SweepResult
from n2n.sweep.run import sweep as run_sweep
from n2n.sweep.shown import show as shown_as
from n2n.sweep.table import PAGE, PICTURE, grouped, means_table
from n2n.sweep.table import TRIALS as TRIALS_CSV
from n2n.sweep.tune import TrialError

KEPT = "sweep.toml"
"""The resolved settings of a sweep, in its folder."""


def command(
    file: Annotated[Path | None, typer.Argument(metavar="SWEEP.toml", help="What is varied, and how.")] = None,
    out: options.Out = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Go on with the sweep in this folder; nothing is run twice.")
    ] = None,
    trials_at_once: Annotated[
        int | None, typer.Option("--trials-at-once", help="Trials that run in parallel. [default: 2]")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Run a grid or a list of searches in parallel, with means over seeds, a Pareto plot and one table of all.

    Exit code 3 where a trial did not finish.
    """
    given = {"out": out, "trials_at_once": trials_at_once}
    said = {name: value for name, value in given.items() if value is not None}
    run(lambda: sweep(file, resume, said, quiet=as_json), as_json=as_json)


def sweep(file: Path | None, resume: Path | None, given: Mapping[str, Any], *, quiet: bool = False) -> Outcome:
    """Runs one sweep, or goes on with it, and says what came out."""
    if resume is not None and file is not None:
        raise ConfigError(f"--resume goes on with the sweep as it was started: leave out {file}")
    found = resumed(resume, given) if resume is not None else started(file, given)
    trials, searches = trials_of(found)
    out = options.out_folder(found.out, force=resume is not None)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / KEPT, to_toml(found))
    how = found.model_dump(exclude={"out", "base", "grid", "trials"})
    students = {name: one.evaluations for name, one in searches.items()}
    result = run_sweep(trials, Search(str(Path.cwd()), found.cpus_per_trial), out=out, students=students,
                       show=shown_as(not quiet), **how)  # fmt: skip
    return Outcome(record(result), lambda: tell(result), OK if result.complete else UNMET)


def started(file: Path | None, given: Mapping[str, Any]) -> SweepSettings:
    """The settings of a new sweep. Raises `ConfigError`."""
    if file is None:
        raise ConfigError("n2n sweep needs a TOML file, or --resume FOLDER; its keys are in docs/running.md")
    return read_sweep(file, given)


def resumed(folder: Path, given: Mapping[str, Any]) -> SweepSettings:
    """The settings that a sweep was started with. Raises `ConfigError`."""
    if "out" in given:
        raise ConfigError("--resume names the folder of the sweep already: leave out --out")
    if not (folder / KEPT).is_file():
        raise ConfigError(f"{folder} has no {KEPT}: there is no sweep to go on with; start one with n2n sweep FILE")
    return read_sweep(folder / KEPT, {**given, "out": folder})


class Search:
    """One search of a sweep, as `n2n search` runs it; it travels to Ray's workers."""

    def __init__(self, home: str, cpus: int) -> None:
        self._home, self._cpus = home, cpus

    def __call__(self, settings: Mapping[str, Any], *, out: Path, shared: Path, resume: bool, display: Display) -> None:
        """See `n2n.sweep.tune.Start`."""
        if self._home not in sys.path:  # for the user's own module:function
            sys.path.insert(0, self._home)
        asked = validated(SearchSettings, None, {"threads": self._cpus, **settings})
        try:
            self._search(asked, out, shared, resume, display)
        except REFUSALS as error:
            raise TrialError(" ".join(str(error).split())) from error

    def _search(self, asked: SearchSettings, out: Path, shared: Path, resume: bool, display: Display) -> None:
        taken = chosen(asked)
        assert taken is not None  # the door has seen to it
        taken = trained(taken, asked)
        check_calibration(asked, taken.network)
        if asked.cache is None:
            cache = shared / f"{fingerprint(taken.network)}-{taken.data.training.fingerprint}.sqlite"
            asked = asked.model_copy(update={"cache": cache})
        find_students(
            taken.network,
            example_inputs(taken.data),
            taken.data,
            out=out,
            teacher_name=taken.teacher_name,
            progress=display,
            resume=resume,
            command=kept(asked),
            **{**arguments(asked), "force": not resume},
        )


def record(result: SweepResult) -> dict[str, Any]:
    """The outcome for machines."""
    return {
        "out": str(result.out),
        "complete": result.complete,
        "trials": [
            {
                "trial": row.trial.name,
                "state": row.state,
                "why_not_finished": row.reason,
                "students": row.students,
                "reused": row.reused,
                "test_accuracy": row.test_accuracy,
                "parameters": row.parameters,
                "meets_budget": row.meets_budget,
            }
            for row in result.rows
        ],
    }


def tell(result: SweepResult) -> None:
    """The outcome in words."""
    typer.echo(f"\n{aligned(*means_table(grouped(result.rows)))}\n")
    for row in result.rows:
        if row.state != "finished":
            typer.echo(f"{row.trial.name}: {row.state}: {row.reason}")
    if not result.complete:
        say(f"some trials did not finish; go on with: n2n sweep --resume {result.out}")
    typer.echo(f"sweep folder: {result.out}\nlook next at:")
    for name in (PAGE, TRIALS_CSV, PICTURE):
        typer.echo(f"  {result.out / name}")
