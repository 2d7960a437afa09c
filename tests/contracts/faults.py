"""A judge of students that goes wrong as files say, in whatever process it runs, and writes down what it did."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from n2n.evaluate import Evaluation, fake
from search_spaces.base import Architecture, SearchSpace


def score(student: Architecture) -> float:
    """Some number in [0, 1] that tells students apart."""
    return int(student.fingerprint[:4], 16) / 0xFFFF


@dataclass(frozen=True)
class Faults:
    """The plan of what goes wrong: files in a folder, so that a process which dies leaves its traces."""

    folder: Path

    def plant(self, student: Architecture, fault: str, *, times: int) -> None:
        """From now on judging the student goes wrong so many times: "kill", "hang" or "bug"."""
        for index in range(times):
            (self.folder / f"{student.fingerprint}-{index}-{fault}").touch()

    def clear(self, student: Architecture) -> None:
        """Nothing is planted for the student any more."""
        for one in self.folder.glob(f"{student.fingerprint}-*-*"):
            one.unlink()

    def strike(self, student: Architecture) -> None:
        """Does what is planted, once."""
        for one in sorted(self.folder.glob(f"{student.fingerprint}-*-*")):
            one.unlink()
            fault = one.name.split("-")[-1]
            self.note("struck", student)
            if fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if fault == "hang":
                time.sleep(600)
            raise KeyError("a bug")

    def note(self, what: str, student: Architecture, more: str = "") -> None:
        """Writes down that something happened to a student; lines that short are written whole."""
        with (self.folder / f"{what}.log").open("a") as file:
            file.write(f"{student.fingerprint} {more}\n")

    def noted(self, what: str) -> list[str]:
        """The students that it happened to, as often as it did."""
        path = self.folder / f"{what}.log"
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


@dataclass(frozen=True)
class Faulty:
    """An evaluator by `score` in which faults strike."""

    space: SearchSpace
    faults: Faults

    def __call__(self, students: Sequence[Architecture]) -> list[Evaluation]:
        """One evaluation each, where nothing strikes."""
        for student in students:
            self.faults.strike(student)
            self.faults.note("judged", student)
        return fake(self.space, score)(students)
