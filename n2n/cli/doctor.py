"""`n2n doctor`: whether a search works here, and what to do where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from n2n.cli import options
from n2n.cli.config import ConfigError
from n2n.cli.door import BAD_INPUT, OK, Outcome, run
from n2n.doctor import Check, checks, healthy, look


def command(
    out: Annotated[Path, typer.Option("--out", help="Where your runs are to be written.")] = Path(),
    ray: Annotated[bool, typer.Option("--ray", help="Start a local Ray, which takes seconds, and stop it.")] = False,
    address: Annotated[
        str | None, typer.Option("--address", help="Reach a running Ray cluster, e.g. auto or 10.0.0.1:6379.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Look at what this machine has for a search, and say what to do about what is missing.

    Exit code 0 where everything that a search needs is there, 2 otherwise.
    """
    run(lambda: doctor(out, ray=ray, address=address), as_json=as_json)


def doctor(out: Path, *, ray: bool = False, address: str | None = None) -> Outcome:
    """Looks and judges."""
    if ray and address is not None:
        raise ConfigError("--ray starts a Ray here and --address reaches another one: say one of them")
    found = look(out, start_ray=ray, address=address)
    judged = checks(found)
    fine = healthy(judged)
    record = {"healthy": fine, "checks": [asdict(one) for one in judged], "found": found.to_json()}
    return Outcome(record, lambda: show(judged), OK if fine else BAD_INPUT)


def show(judged: Sequence[Check]) -> None:
    """A line for each, with what to do below it."""
    width = max(len(one.what) for one in judged)
    indent = " " * (width + 11)
    for one in judged:
        mark = "ok" if not one.problem else "PROBLEM" if one.needed else "note"
        typer.echo(f"{mark:<7}  {one.what:<{width}}  " + f"\n{indent}".join(one.value.split("; ")))
        if one.problem:
            typer.echo(f"{indent}{one.problem}: {one.advice}")
    broken = [one.what for one in judged if one.problem and one.needed]
    typer.echo(f"\na search does not work here yet: {', '.join(broken)}" if broken else "\na search works here")
