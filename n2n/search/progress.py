"""What a person sees while a search runs: a bar on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import contextlib
import sys
import warnings
from pathlib import Path
from types import TracebackType
from typing import Protocol, TextIO, final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class LogWarning(UserWarning):
    """The log of a run cannot be written; the run goes on without."""


class Display(Protocol):
    """One line of work at a time, and remarks."""

    def begin(self, name: str, total: int) -> None:
        """Work of `total` units begins."""
        ...

    def update(self, done: int, remark: str = "", best: float | None = None) -> None:
        """`done` units are behind us; `best` is the best reward of the stage so far, where students are judged."""
        ...

    def note(self, text: str) -> None:
        """Something worth reading later."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


@final
class Silent:
    """Shows nothing."""

    def begin(self, name: str, total: int) -> None:
        """Shows nothing."""

    def update(self, done: int, remark: str = "", best: float | None = None) -> None:
        """Shows nothing."""

    def note(self, text: str) -> None:
        """Shows nothing."""

    def close(self) -> None:
        """Shows nothing."""


@final
class Lines:
    """Plain lines, about ten for each piece of work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._name, self._total, self._shown = "", 1, -1

    def begin(self, name: str, total: int) -> None:
        """Names the work."""
        self._name, self._total, self._shown = name, max(total, 1), -1

    def update(self, done: int, remark: str = "", best: float | None = None) -> None:
        """A line at every tenth of the way."""
        tenth = 10 * done // self._total
        if tenth > self._shown:
            self._shown = tenth
            print(f"{self._name}: {done}/{self._total} {remark}".rstrip(), file=self._stream, flush=True)

    def note(self, text: str) -> None:
        """A line."""
        print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing to clear."""


@final
class Bar:
    """A rich progress bar with the best student so far."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[remark]}"),
        )
        self._progress = Progress(*columns, console=console)
        self._task: TaskID | None = None
        self._progress.start()

    def begin(self, name: str, total: int) -> None:
        """A new bar."""
        self._task = self._progress.add_task(name, total=total, remark="")

    def update(self, done: int, remark: str = "", best: float | None = None) -> None:
        """Moves the bar."""
        if self._task is not None:
            self._progress.update(self._task, completed=done, remark=remark)

    def note(self, text: str) -> None:
        """A line above the bar."""
        self._progress.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        """Gives the terminal back."""
        self._progress.stop()


@final
class Logged:
    """Another display, whose remarks also go to a file, as they are made.

    A log is not worth a run: where the file system refuses it (a full disk, say), one `LogWarning` is given and nothing
    more is logged.
    """

    def __init__(self, display: Display, path: Path) -> None:
        self._display, self._path = display, path
        self._file: TextIO | None = None
        try:
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            self._give_up(error)

    def begin(self, name: str, total: int) -> None:
        """Passes on and writes a line."""
        self._display.begin(name, total)
        self._log(f"begin {name}, {total}")

    def update(self, done: int, remark: str = "", best: float | None = None) -> None:
        """Passes on."""
        self._display.update(done, remark, best)

    def note(self, text: str) -> None:
        """Passes on and writes a line."""
        self._display.note(text)
        self._log(text)

    def close(self) -> None:
        """Closes both."""
        self._display.close()
        if self._file is not None:
            self._file.close()

    def _log(self, text: str) -> None:
        if self._file is None:
            return
        try:
            print(text, file=self._file, flush=True)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # what could not be written is tried once more, and then dropped
                self._file.close()
            self._file = None
        message = f"cannot write {self._path}: {error.strerror or error}; the run goes on without a log"
        warnings.warn(message, LogWarning, stacklevel=3)

    def __enter__(self) -> Logged:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


def display(wanted: bool | Display) -> Display:
    """What fits standard error, so that standard output stays free for results; a display that is given, as it is."""
    if not isinstance(wanted, bool):
        return wanted
    if not wanted:
        return Silent()
    console = Console(stderr=True)
    return Bar(console) if console.is_terminal else Lines(sys.stderr)
