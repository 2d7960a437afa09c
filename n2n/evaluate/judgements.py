"""Judgements of a panel by several rungs: rows of a CSV file that grows while they are made."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from n2n.evaluate.base import Evaluation, Status


@dataclass(frozen=True)
class Judgement:
    """One student, judged once by one rung with one seed.

    Attributes:
        rung, seed: how it was judged.
        fingerprint, parameters, macs: of the student.
        share: of the teacher's parameters, in (0, 1).
        removed: share of the removal decisions that removed, in [0, 1].
        status, reason, accuracy, agreement, loss, score, seconds: see `Evaluation`; None where there is no such number.
    """

    rung: str
    seed: int
    fingerprint: str
    parameters: int
    macs: int
    share: float
    removed: float
    status: str
    accuracy: float | None
    agreement: float | None
    loss: float | None
    score: float | None
    seconds: float
    reason: str = ""

    @classmethod
    def of(cls, rung: str, seed: int, found: Evaluation, *, share: float, removed: float) -> Self:
        """The judgement that an evaluation is."""
        return cls(rung, seed, found.fingerprint, found.parameters, found.macs, round(share, 4), round(removed, 3),
                   found.status.value, found.accuracy, found.agreement, found.loss, found.score,
                   round(found.seconds, 3), found.reason)  # fmt: skip

    @property
    def key(self) -> tuple[str, int, str]:
        """What is judged once only: rung, seed and student."""
        return self.rung, self.seed, self.fingerprint

    @property
    def ok(self) -> bool:
        """Whether there is something to rank by."""
        return self.status == Status.OK.value


_COLUMNS = tuple(field.name for field in fields(Judgement))
_NUMBERS = {"seed": int, "parameters": int, "macs": int, "share": float, "removed": float, "seconds": float}
_MAYBE = ("accuracy", "agreement", "loss", "score")


def read_judgements(path: Path) -> list[Judgement]:
    """The rows of a file, without further columns; none where there is no file. A last row that was cut off is dropped.

    Raises:
        ValueError: the file is not one of judgements, or a row is damaged; file and line are named.
    """
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        missing = [name for name in ("rung", "seed", "fingerprint", "seconds") if name not in (table.fieldnames or ())]
        if missing:
            raise ValueError(f"{path} is not a file of judgements: the column {missing[0]} is missing")
        rows = list(table)
    found = []
    for number, row in enumerate(rows, start=2):
        try:
            found.append(_judgement(row))
        except (TypeError, ValueError) as error:
            if number == len(rows) + 1:
                break  # the run was killed while it wrote this row
            raise ValueError(
                f"{path}, line {number} is damaged ({error}); delete the line, it is made again"
            ) from error
    return found


def _judgement(row: Mapping[str, str | None]) -> Judgement:
    values: dict[str, Any] = {name: row.get(name) or "" for name in _COLUMNS}
    values |= {name: kind(values[name]) for name, kind in _NUMBERS.items()}
    values |= {name: float(values[name]) if values[name] else None for name in _MAYBE}
    return Judgement(**values)


def append_judgement(path: Path, one: Judgement, more: Mapping[str, object] | None = None) -> None:
    """Adds a row, after the header where the file is new; `more` are further columns, the same in every call.

    A file that ends within a row, because its writer was killed, loses that row first.
    """
    columns: Sequence[str] = (*_COLUMNS, *(more or {}))
    fresh = not path.exists() or path.stat().st_size == 0
    if not fresh:
        _whole(path)
    with path.open("a", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        if fresh:
            table.writeheader()
        table.writerow({**asdict(one), **(more or {})})


def _whole(path: Path) -> None:
    """Cuts off a last row without its line end."""
    content = path.read_bytes()
    if not content.endswith(b"\n"):
        path.write_bytes(content[: content.rfind(b"\n") + 1])


def keys(judgements: Iterable[Judgement]) -> set[tuple[str, int, str]]:
    """What needs not be judged again."""
    return {one.key for one in judgements}
