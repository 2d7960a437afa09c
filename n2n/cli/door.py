"""What stands between a command and the shell: exit codes, clean messages for bad input, and `--json`."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import typer

from n2n.cli.config import ConfigError
from n2n.data.errors import DataError
from n2n.distill.objectives.expression import ObjectiveError
from n2n.evaluate.fidelity import PanelError
from n2n.evaluate.memory import CacheError
from n2n.evaluate.pool_plan import PoolError
from n2n.networks.stages import StageError
from n2n.policies.files import PolicyError
from n2n.search.errors import ArtefactError, ExportError, SearchError, WriteError
from n2n.search.query import QueryError
from n2n.sweep.trials import SweepError
from search_spaces.base import SpaceError

OK, BAD_INPUT, UNMET, INTERRUPTED = 0, 2, 3, 130
"""Exit codes: done; bad usage or input; done, but no student meets the budget; stopped before there was a result."""

REFUSALS = (
    ArtefactError,
    CacheError,
    ConfigError,
    DataError,
    ExportError,
    ObjectiveError,
    PanelError,
    PolicyError,
    PoolError,
    QueryError,
    SearchError,
    SpaceError,
    StageError,
    SweepError,
    WriteError,
)
"""Errors whose message is written for the user. Anything else is a bug of ours and keeps its traceback."""


@dataclass(frozen=True)
class Outcome:
    """What a command ends with: one JSON object for machines, the same in words for people, and the exit code."""

    record: Mapping[str, Any]
    show: Callable[[], None]
    code: int = OK


def run(command: Callable[[], Outcome], *, as_json: bool) -> NoReturn:
    """Runs a command and leaves with its exit code.

    With `as_json` standard output carries exactly one JSON object; whatever else is printed goes to standard error.
    """
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        outcome = _guarded(command)
    if as_json:
        typer.echo(json.dumps(outcome.record))
    else:
        outcome.show()
    raise typer.Exit(outcome.code)


def _guarded(command: Callable[[], Outcome]) -> Outcome:
    try:
        return command()
    except REFUSALS as error:
        return _refusal(_plain(str(error)), BAD_INPUT)
    except PermissionError as error:  # what a file or folder allows is never a bug of ours
        return _refusal(f"{error.filename or 'a file'}: {error.strerror}; check its permissions", BAD_INPUT)
    except KeyboardInterrupt:
        return _refusal("interrupted before there was a result; what was written earlier is whole", INTERRUPTED)


def _plain(message: str) -> str:
    """A message as one line, and code to paste behind it as it is: what follows an empty line and stands indented."""
    text, blank, code = message.partition("\n\n    ")
    return " ".join(text.split()) + (f"\n\n    {code.rstrip()}\n" if blank else "")


def _refusal(message: str, code: int) -> Outcome:
    # People and machines alike find it on standard error; with --json it is the object on standard output too.
    say(f"error: {message}")
    return Outcome({"error": message}, lambda: None, code)


def say(text: str) -> None:
    """A plain line for people, on standard error, so that results can be piped."""
    typer.echo(text, err=True)
