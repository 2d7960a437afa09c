"""`n2n search --space NAME`: the best students of a published space by a training-free score, as one run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from n2n.cli import options
from n2n.cli.config import ConfigError, SearchSettings
from n2n.cli.door import Outcome, say
from n2n.cli.networks import chosen, load_data, trained
from n2n.data import DATA
from n2n.networks.units import mac_text, millions
from n2n.report.tables import HEADER, aligned, figures_table
from n2n.search.files import read_json
from n2n.space_job import SpaceResult
from n2n.space_main import search_space

PASSED_ON = (
    "max_params", "max_macs", "max_size_mb", "evaluate", "against", "evaluations", "seconds", "seed", "agent",
    "rollouts", "population", "tournament", "final_epochs", "finalists", "cache", "device", "precision", "workers",
    "address", "gpus_per_worker", "force",
)  # fmt: skip
"""Settings that are arguments of `n2n.search_space` under the same name."""
TURNED = ("space", "out", "resume", "data", "data_dir", "teacher", "network_args", "objective", "threads")
"""Settings that the command turns into others."""


def search(settings: SearchSettings, numbers: Mapping[str, Any], command: dict[str, Any], *, quiet: bool) -> Outcome:
    """Runs one search and says what came out.

    Args:
        numbers: the budgets, as numbers where they read as such.
        command: the settings as the run keeps them.

    Raises:
        ConfigError: no score, or a setting that only a search over a teacher's layers has.
    """
    resuming = settings.resume is not None
    out = options.out_folder(settings.out, force=settings.force or resuming)
    assert settings.space is not None
    if settings.evaluate is None:
        raise ConfigError("--space needs --evaluate SCORE: nobody has trained a network of the space to distil from")
    idle = sorted(settings.model_fields_set - {*PASSED_ON, *TURNED})
    if idle:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in idle)
        raise ConfigError(f"--space with {names}: these are of searches over a teacher's layers; leave them out")
    if settings.threads == "auto" and "threads" in settings.model_fields_set:
        raise ConfigError("--threads auto times a teacher's training steps, and --space has none; give a number")
    teacher: dict[str, Any] = {}
    if settings.teacher is None:
        data, _ = load_data(settings)
    else:
        found = chosen(settings.model_copy(update={"network_args": {}}))
        assert found is not None  # there is a teacher
        found = trained(found, settings)
        data, teacher = found.data, {"teacher": found.network, "teacher_name": found.teacher_name}
    for note in data.notes:
        say(f"note: {note}")
    result = search_space(
        settings.space,
        data,
        out=out,
        space_args=settings.network_args,
        objective=settings.objective if "objective" in settings.model_fields_set else None,
        threads=settings.threads if isinstance(settings.threads, int) else None,
        resume=resuming,
        progress=not quiet,
        command=command,
        **{name: numbers.get(name, getattr(settings, name)) for name in PASSED_ON if name in settings.model_fields_set},
        **teacher,
    )
    source = data.origin.source if data.origin else None
    return outcome(result, "" if source in DATA else f" --data {source or data.name}")


def outcome(result: SpaceResult, rest: str) -> Outcome:
    """The result for machines and for people."""
    record = {
        "out": str(result.out),
        "stopped": result.stopped,
        "evaluations": result.evaluations,
        "seconds": result.seconds,
        "best": [vars(one) for one in result.best],
        "students": [one.to_json() for one in result.students],
        "notes": list(result.notes),
    }
    return Outcome(record, lambda: show(result, rest))


def show(result: SpaceResult, rest: str) -> None:
    """The best codes, the trained ones, and what to look at next."""
    rows = [(one.code, f"{one.score:.6g}", millions(one.parameters), mac_text(one.macs)) for one in result.best]
    typer.echo(f"\n{aligned(('code', 'score', 'parameters', 'MACs'), rows)}\n")
    if result.students:
        typer.echo(f"{aligned(HEADER, figures_table(read_json(result.out / 'result.json')))}\n")
    for note in result.notes:
        typer.echo(f"note: {note}")
    typer.echo(f"{result.evaluations} students scored in {result.seconds:.0f} s; ended by: {result.stopped}")
    typer.echo(f"run folder: {result.out}\nlook next at:")
    typer.echo(f"  {result.out / 'report.md'}")
    for one in result.students[:1]:
        typer.echo(f"  n2n evaluate {result.out / Path(one.folder)}{rest}")
    if (result.out / "policies").is_dir():  # agents without weights leave none
        typer.echo(f"  n2n policy show {result.out}")
