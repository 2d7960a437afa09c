"""`n2n score --space NAME`: training-free scores of a published space's students, one row each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from n2n.cli import options
from n2n.cli.config import ConfigError, ScoreSettings
from n2n.cli.door import Outcome, run, say
from n2n.cli.networks import load_data
from n2n.population import read_codes, sampled, score_population
from n2n.scores import AGGREGATES, SCORES
from n2n.search.space_options import opened_for
from search_spaces import PUBLISHED


def command(
    context: typer.Context,
    space: Annotated[str | None, typer.Option("--space", help=f"One of {', '.join(PUBLISHED)}.")] = None,
    network_arg: options.NetworkArg = None,
    architectures: Annotated[
        Path | None, typer.Option("--architectures", help="CSV file whose column `code` holds short forms.")
    ] = None,
    sample: Annotated[int | None, typer.Option("--sample", help="So many random students instead.")] = None,
    scores: Annotated[
        str | None, typer.Option("--scores", help=f"With commas: {', '.join([*SCORES, *AGGREGATES])}.")
    ] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", help="The mean over so many is taken. [default: 1]")] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Images that are looked at. [default: 64]")] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="Short form of the teacher; the largest of the space by default.")
    ] = None,
    data: options.Data = None,
    data_dir: options.DataDir = None,
    out: Annotated[Path | None, typer.Option("--out", help="CSV file to write, or to go on with.")] = None,
    seed: options.Seed = None,
    device: options.Device = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Score students of a published space without training any of them.

    The space is opened for the data's classes and images, unless --network-arg classes=100 says otherwise.
    """
    run(lambda: score(options.read(ScoreSettings, context)), as_json=as_json)


def score(settings: ScoreSettings) -> Outcome:
    """Reads or draws the students and scores them."""
    given = {"--space NAME": settings.space, "--scores NAME,NAME": settings.scores, "--out FILE.csv": settings.out}
    if settings.out is None or settings.space is None or not settings.scores:
        raise ConfigError(f"n2n score also needs {' and '.join(name for name, value in given.items() if not value)}")
    if (settings.architectures is None) == (settings.sample is None):
        raise ConfigError("say which students: --architectures FILE.csv, or --sample N; one of both")
    loaded, _ = load_data(settings)
    training = loaded.training
    space = opened_for(settings.space, training, settings.network_args)
    if settings.architectures is not None:
        codes = read_codes(settings.architectures)
    else:
        assert settings.sample is not None
        codes = sampled(space, settings.sample, settings.seed)

    def told(done: int, total: int) -> None:
        if done == total or done % max(1, total // 20) == 0:
            say(f"{done} of {total} students")

    say(f"{space.name}, {len(set(codes)):,} students, on {loaded.name}")
    missing = score_population(
        space,
        codes,
        training,
        scores=settings.scores,
        out=settings.out,
        seeds=settings.seeds,
        seed=settings.seed,
        batch=settings.batch,
        device=settings.device,
        teacher=settings.against,
        progress=told,
    )
    record = {"out": str(settings.out), "students": len(set(codes)), "missing": missing}
    return Outcome(record, lambda: show(record))


def show(record: dict[str, object]) -> None:
    """Where the rows are, and what is missing in them."""
    typer.echo(f"{record['students']} students in {record['out']}")
    if record["missing"]:
        typer.echo(f"{record['missing']} scores are empty; the column `failure` says why")
