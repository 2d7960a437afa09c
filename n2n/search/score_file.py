"""The CSV file that `n2n score` writes: a row at a time, gone on with, and never mixed with other settings."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from n2n.search.errors import ArtefactError, WriteError

MADE_WITH = "made_with"
"""The column that says what all rows of a file were scored with."""
CODE, PARAMETERS, MACS, SECONDS, FAILURE = "code", "parameters", "macs", "seconds", "failure"


@final
@dataclass(frozen=True)
class ScoreFile:
    """Rows of `columns`, all made with the same settings.

    Attributes:
        path: of the CSV file; its folder is made where it is missing.
        scores: the columns of numbers; empty where a student has no such score.
        made_with: the settings, in words.
    """

    path: Path
    scores: tuple[str, ...]
    made_with: str

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns; a score `macs` stands in the place of the space's own count, which may be another one."""
        costs = tuple(name for name in (CODE, PARAMETERS, MACS) if name not in self.scores)
        return (*costs, *self.scores, SECONDS, FAILURE, MADE_WITH)

    def rows(self) -> list[dict[str, str]]:
        """The rows so far; what is left of a row that was not written to its end is taken out of the file.

        Raises:
            ArtefactError: the file has other columns, was made with other settings, or holds a damaged row.
            WriteError: the file system refused.
        """
        if not self.path.exists():
            return []
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ArtefactError(f"cannot read {self.path}: {error}; choose another file for --out") from error
        whole = text[: text.rfind("\n") + 1]
        table = csv.reader(io.StringIO(whole))
        header = next(table, None)
        if header is not None and tuple(header) != self.columns:
            raise ArtefactError(
                f"{self.path} has the columns {', '.join(header)}, expected {', '.join(self.columns)}; choose another"
                " file"
            )
        found = [self._row(cells, number) for number, cells in enumerate(table, start=2)]
        if whole != text:
            self.write(found)
        return found

    def _row(self, cells: Sequence[str], number: int) -> dict[str, str]:
        """A row as the file has it.

        Raises:
            ArtefactError: it is damaged, or was made with other settings.
        """
        row = dict(zip(self.columns, cells, strict=False))
        if len(cells) != len(self.columns) or not all(row[name] == "" or _finite(row[name]) for name in self.scores):
            raise ArtefactError(
                f"line {number} of {self.path} is damaged ({','.join(cells)[:80]}); take it out, and its student is"
                " scored again"
            )
        if row[MADE_WITH] != self.made_with:
            raise ArtefactError(
                f"{self.path} was made with other settings: {row[MADE_WITH]}; asked for is: {self.made_with}; choose"
                " another file"
            )
        return row

    def append(self, row: Mapping[str, object]) -> None:
        """Adds one row. Raises `WriteError`."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fresh = not self.path.exists() or not self.path.stat().st_size
            with self.path.open("a", newline="", encoding="utf-8") as file:
                table = csv.DictWriter(file, self.columns, lineterminator="\n")
                if fresh:
                    table.writeheader()
                table.writerow({**row, MADE_WITH: self.made_with})
        except OSError as error:
            raise self._refused(error) from error

    def write(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Writes all rows anew, in one go. Raises `WriteError`."""
        beside = self.path.with_name(f"{self.path.name}.tmp")
        try:
            with beside.open("w", newline="", encoding="utf-8") as file:
                table = csv.DictWriter(file, self.columns, lineterminator="\n")
                table.writeheader()
                table.writerows(rows)
            os.replace(beside, self.path)
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> WriteError:
        safe = "; the rows before are safe" if self.path.is_file() else ""
        return WriteError(f"cannot write {self.path}: {error.strerror or error}{safe}")


def _finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
