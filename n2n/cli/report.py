"""`n2n report RUN`: the report and plots of a run, written again from its files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from n2n.cli import options
from n2n.cli.config import ConfigError
from n2n.cli.door import Outcome, run
from n2n.report import write_report


def command(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder that `n2n search` wrote.")],
    as_json: options.Json = False,
) -> None:
    """Write a run's report.md and plots again from the files of its folder, and print the report."""
    run(lambda: report(folder), as_json=as_json)


def report(folder: Path) -> Outcome:
    """Writes the report of a run folder."""
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder} is no run folder: it has no config.json; name the --out of an `n2n search`")
    write_report(folder)
    file = folder / "report.md"
    text = file.read_text(encoding="utf-8")
    return Outcome({"run": str(folder), "report": str(file)}, lambda: typer.echo(text))
