"""`n2n runs [FOLDER]`: which runs there are, and what came out of each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from n2n.cli import options
from n2n.cli.door import Outcome, run
from n2n.networks.units import millions
from n2n.report.tables import aligned
from n2n.search.budgets import words_of
from n2n.search.runs import Best, Run, State
from n2n.search.runs import runs as read_runs

DEFAULT = Path("runs")
HEADER = ("run", "state", "teacher", "data", "agent", "budget", "judged", "best student", "begun (UTC)", "seconds")
NEXT = {
    State.RUNNING: "running: a search is at work there; its folder is not given to another one, with --force either",
    State.STOPPED: "stopped: its process ended before there was a result; `n2n search --resume RUN` goes on with it,"
    " and what it judged can be read by `n2n query`",
}
"""What a reader must know of a state."""


def command(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="Where the runs are, up to three folders down.")
    ] = DEFAULT,
    as_json: options.Json = False,
) -> None:
    """List the runs under a folder: state, teacher, data, agent, budget, and the best finished student of each."""
    run(lambda: runs(folder), as_json=as_json)


def runs(folder: Path) -> Outcome:
    """Reads the runs and says what they are."""
    found = read_runs(folder)
    record = {"folder": str(folder), "runs": [one.to_json() for one in found]}
    return Outcome(record, lambda: show(folder, found))


def show(folder: Path, found: list[Run]) -> None:
    """One line for each, and below them what is wrong and what can be done."""
    if not found:
        typer.echo(f"no run under {folder}; `n2n search --out {folder / 'NAME'}` makes one")
        return
    typer.echo(aligned(HEADER, [row(one) for one in found]))
    for text in [NEXT[state] for state in NEXT if any(one.state is state for one in found)]:
        typer.echo(f"\n{text}")
    for one in found:
        if one.state is State.BROKEN:
            typer.echo(f"\nbroken: {one.name}: {one.problem}")


def times(best: Best) -> str:
    """How many times fewer parameters than the teacher's, in brackets; empty without a teacher."""
    return "" if best.compression is None else f" ({best.compression:.1f}x)"


def row(one: Run) -> tuple[str, ...]:
    """The cells under `HEADER`; what is not known is empty."""
    best = one.best
    return (
        one.name,
        one.state.value,
        one.teacher,
        one.data,
        one.agent,
        words_of(one.budget or {}),
        "" if one.judged is None else str(one.judged),
        "" if best is None else f"{best.test_accuracy:.2%}, {millions(best.parameters)}{times(best)}",
        one.when.removesuffix("+00:00").replace("T", " "),
        "" if one.seconds is None else f"{one.seconds:.0f}",
    )
