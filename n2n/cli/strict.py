"""Commands and groups that name what is valid where something unknown is typed."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from n2n.cli.door import BAD_INPUT, say


class Command(TyperCommand):
    """Names the valid flags where an unknown one is used."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        flags = [flag for one in self.params for flag in (*one.opts, *one.secondary_opts)]
        valid = {"--help", *(flag for flag in flags if flag.startswith("--"))}
        for flag in (argument.partition("=")[0] for argument in args):
            if flag.startswith("--") and flag != "--" and flag not in valid:
                say(f"error: unknown flag {flag}; {_typed(ctx)} has: {', '.join(sorted(valid))}")
                raise typer.Exit(BAD_INPUT)
        return super().parse_args(ctx, args)


class Group(TyperGroup):
    """Names the valid commands where an unknown one is used."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            whose = "the commands" if ctx.parent is None else f"the commands of {_typed(ctx)}"
            say(f"error: unknown command {args[0]!r}; {whose} are: {', '.join(self.commands)}")
            raise typer.Exit(BAD_INPUT)
        return super().parse_args(ctx, args)


def _typed(ctx: Any) -> str:
    """The command as it is typed, whatever file it was started from: "n2n policy show"."""
    return " ".join(["n2n", *ctx.command_path.split()[1:]])
