"""`n2n calibrate`: which quick judgement ranks students as a long distillation does, on one's own teacher and data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from n2n.calibration import LADDER, PLOT, Calibration
from n2n.calibration import calibrate as compare_rungs
from n2n.cli import options
from n2n.cli.config import CalibrateSettings, ConfigError
from n2n.cli.door import Outcome, run
from n2n.cli.networks import chosen, trained
from n2n.data import example_inputs


def command(
    context: typer.Context,
    teacher: options.Teacher = None,
    network: options.Network = None,
    network_arg: options.NetworkArg = None,
    weights: options.Weights = None,
    data: options.Data = None,
    data_dir: options.DataDir = None,
    seconds: Annotated[float | None, typer.Option("--seconds", help="Wall time; the same command goes on.")] = None,
    students: Annotated[int | None, typer.Option("--students", help="Size of the panel. [default: 24]")] = None,
    rungs: Annotated[list[str] | None, typer.Option("--rung", help="A rung to compare; may be repeated.")] = None,
    truth: Annotated[
        str | None,
        typer.Option("--against", help="The long distillation. [default: inherited:3e; more epochs on small data]"),
    ] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", help="Of the long distillation. [default: 2]")] = None,
    granularity: options.Granularity = None,
    objective: options.Objective = None,
    importance: Annotated[
        str | None, typer.Option("--importance", help="Which channels stay: l1, l2, bn_scale, taylor or random.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write, or to go on with; refused where it holds another.")
    ] = None,
    seed: options.Seed = None,
    device: options.Device = None,
    precision: options.Precision = None,
    threads: Annotated[
        int | None, typer.Option("--threads", help="Of torch, 1 to the machine's cores. [default: torch's own]")
    ] = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Compare quick judgements with a long distillation on a panel of students, and recommend a ladder for searches.

    Whatever is judged is kept at once: the same command with the same --out goes on where the last one ended.
    """
    run(lambda: calibrate(options.read(CalibrateSettings, context), quiet=as_json), as_json=as_json)


def calibrate(settings: CalibrateSettings, *, quiet: bool = False) -> Outcome:
    """Runs, or goes on with, one calibration."""
    if settings.out is None:
        raise ConfigError("--out FOLDER is required: where the judgements are kept")
    if settings.teacher is None and settings.network is None:
        raise ConfigError("n2n calibrate needs the teacher: --teacher FOLDER, or --network with --weights")
    base = chosen(settings)
    assert base is not None
    base = trained(base, settings)
    kept = {name: value for name, value in settings if name in ARGUMENTS}
    found = compare_rungs(
        base.network, example_inputs(base.data), base.data, out=settings.out, progress=not quiet, **kept
    )
    return Outcome(found.to_json(), lambda: show(found))


ARGUMENTS = ("seconds", "students", "rungs", "truth", "seeds", "seed", "granularity", "objective", "importance",
             "device", "precision", "threads")  # fmt: skip
"""Settings that are arguments of `n2n.calibrate` under the same name."""


def show(found: Calibration) -> None:
    """The table, what it means, and what to do next."""
    typer.echo(f"\n{found.table()}\n")
    for note in found.notes:
        typer.echo(f"note: {note}")
    typer.echo(f"recommended: {' -> '.join(found.ladder)}")
    typer.echo(f"picture: {found.out / PLOT}\nlook next at:")
    typer.echo(f"  n2n search --config {found.out / LADDER} --teacher ... --max-params 20% --out ...")
