"""`n2n query RUN SQL`: a statement on the judgements of a run."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Annotated

import typer

from n2n.cli import options
from n2n.cli.config import ConfigError
from n2n.cli.door import Outcome, run
from n2n.report.tables import aligned
from n2n.search.query import Answer
from n2n.search.query import query as ask


def command(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder that `n2n search` wrote.")],
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One statement that reads, on the table evaluations.")],
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values, a header first.")] = False,
    as_json: options.Json = False,
) -> None:
    """Run an SQL statement on a run's evaluations.sqlite, which is opened for reading only, and print the rows.

    For example: n2n query runs/small "SELECT stage, accuracy, parameters FROM evaluations ORDER BY reward DESC LIMIT 5"
    """
    run(lambda: query(folder, sql, as_csv=as_csv, as_json=as_json), as_json=as_json)


def query(folder: Path, sql: str, *, as_csv: bool = False, as_json: bool = False) -> Outcome:
    """Asks, and prints as a table or as CSV."""
    if as_csv and as_json:
        raise ConfigError("--csv and --json exclude one another: say one of them")
    answer = ask(folder, sql)
    rows = [[value.hex() if isinstance(value, bytes) else value for value in row] for row in answer.rows]
    record = {"run": str(folder), "columns": list(answer.columns), "rows": rows}
    return Outcome(record, lambda: show_csv(answer) if as_csv else show(answer))


def show(answer: Answer) -> None:
    """A table, each row on one line."""
    typer.echo(aligned(answer.columns, [[cell(value) for value in row] for row in answer.rows]))


def show_csv(answer: Answer) -> None:
    """Numbers as they are stored; nothing is an empty cell."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(answer.columns)
    writer.writerows([cell(value, exact=True) for value in row] for row in answer.rows)


def cell(value: object, *, exact: bool = False) -> str:
    """A value as text: numbers with six digits and texts on one line, unless they are to be `exact`."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.hex()
    if exact:
        return str(value)
    return f"{value:.6g}" if isinstance(value, float) else " ".join(str(value).split())
