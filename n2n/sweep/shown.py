"""What a person sees while a sweep runs: a live table on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TextIO, final

from rich.console import Console
from rich.live import Live
from rich.table import Table

from n2n.sweep.rows import State


@dataclass(frozen=True)
class Line:
    """A trial as it stands: students judged of those that it may judge, and the best reward so far."""

    name: str
    total: int
    state: State = "waiting"
    students: int = 0
    best: float | None = None


class Show(Protocol):
    """Shows all trials, each time that one of them changes."""

    def show(self, lines: Sequence[Line]) -> None:
        """The trials as they stand now."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


@final
class Nothing:
    """Shows nothing."""

    def show(self, lines: Sequence[Line]) -> None:
        """Shows nothing."""

    def close(self) -> None:
        """Shows nothing."""


@final
class Plain:
    """A line for a trial whose state changes, or that has come another fifth of its way."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown: dict[str, tuple[State, int]] = {}

    def show(self, lines: Sequence[Line]) -> None:
        """The lines that are news."""
        for one in lines:
            news = (one.state, 5 * one.students // max(1, one.total))
            if self._shown.get(one.name, ("waiting", 0)) != news:
                self._shown[one.name] = news
                print(f"{one.name}: {one.state}, {_progress(one)}", file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing to clear."""


@final
class Board:
    """A table that changes where it stands."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False)
        self._live.start()

    def show(self, lines: Sequence[Line]) -> None:
        """Draws the table again, those that run first."""
        self._live.update(drawn(lines, rows=max(5, self._live.console.height - 6)), refresh=True)

    def close(self) -> None:
        """Leaves the last table and gives the terminal back."""
        self._live.stop()


ORDER: tuple[State, ...] = ("running", "failed", "waiting", "cut off", "stopped", "finished")
"""The states by how much they are worth a look."""


def drawn(lines: Sequence[Line], rows: int) -> Table:
    """The table: where the trials are more than `rows`, those that are worth a look, and how many are left out."""
    kept = lines if len(lines) <= rows else sorted(lines, key=lambda one: ORDER.index(one.state))[:rows]
    table = Table("trial", "state", "students judged", "best reward")
    for one in kept:
        best = "" if one.best is None else f"{one.best:.3f}"
        table.add_row(one.name, one.state, f"{one.students} of {one.total}", best)
    if len(kept) < len(lines):
        table.caption = f"and {len(lines) - len(kept)} more"
    return table


def _progress(one: Line) -> str:
    best = "" if one.best is None else f", best reward {one.best:.3f}"
    return f"{one.students} of {one.total} students judged{best}"


def show(wanted: bool) -> Show:
    """What fits standard error, so that standard output stays free for results."""
    if not wanted:
        return Nothing()
    console = Console(stderr=True)
    return Board(console) if console.is_terminal else Plain(sys.stderr)
