"""The command `n2n`: one file per subcommand, gathered here."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from n2n.cli import distill, evaluate, policy, report, search, train_teacher
from n2n.cli.door import BAD_INPUT, say


class _Command(TyperCommand):
    """Names the valid flags where an unknown one is used."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        flags = [flag for one in self.params for flag in (*one.opts, *one.secondary_opts)]
        valid = {"--help", *(flag for flag in flags if flag.startswith("--"))}
        for flag in (argument.partition("=")[0] for argument in args):
            if flag.startswith("--") and flag != "--" and flag not in valid:
                say(f"error: unknown flag {flag}; n2n {ctx.info_name} has: {', '.join(sorted(valid))}")
                raise typer.Exit(BAD_INPUT)
        return super().parse_args(ctx, args)


class _Group(TyperGroup):
    """Names the valid commands where an unknown one is used."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            say(f"error: unknown command {args[0]!r}; the commands are: {', '.join(self.commands)}")
            raise typer.Exit(BAD_INPUT)
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find small networks that keep the accuracy of a trained one. Exit codes: 0 done, 2 bad usage or input, "
    "3 done but no student meets the budget.",
)
app.command("train-teacher", cls=_Command)(train_teacher.command)
app.command("search", cls=_Command)(search.command)
app.command("distill", cls=_Command)(distill.command)
app.command("evaluate", cls=_Command)(evaluate.command)
app.command("report", cls=_Command)(report.command)
app.add_typer(policy.app, name="policy")


def main() -> None:
    """The entry point of the console script."""
    app()
