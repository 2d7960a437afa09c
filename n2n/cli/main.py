"""The command `n2n`: one file per subcommand, gathered here."""

from __future__ import annotations

import typer

from n2n.cli import (
    calibrate,
    distill,
    doctor,
    evaluate,
    export,
    inspect,
    policy,
    query,
    report,
    runs,
    score,
    search,
    sweep,
    train_teacher,
)
from n2n.cli.strict import Command, Group

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # it would take "[default: 60]" for markup and drop it
    help="Find small networks that keep the accuracy of a trained one. Exit codes: 0 done, 2 bad usage or input, "
    "3 done but no student meets the budget, or a trial of a sweep did not finish.",
)
app.command("train-teacher", cls=Command)(train_teacher.command)
app.command("inspect", cls=Command)(inspect.command)
app.command("search", cls=Command)(search.command)
app.command("sweep", cls=Command)(sweep.command)
app.command("calibrate", cls=Command)(calibrate.command)
app.command("score", cls=Command)(score.command)
app.command("distill", cls=Command)(distill.command)
app.command("evaluate", cls=Command)(evaluate.command)
app.command("export", cls=Command)(export.command)
app.command("report", cls=Command)(report.command)
app.command("runs", cls=Command)(runs.command)
app.command("query", cls=Command)(query.command)
app.command("doctor", cls=Command)(doctor.command)
app.add_typer(policy.app, name="policy")


def main() -> None:
    """The entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
