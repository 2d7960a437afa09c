"""Judgements of a panel by several rungs: rows of a CSV file that grows while they are made."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
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
    """The rows of a file, without further columns; none where there is no file.

    What stands behind the last line end is left out: the run was killed while it wrote it.

    Raises:
        ValueError: the file is not one of judgements, or a row is damaged; file and line are named.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    try:
        text = content[: _whole(content)].decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a file of judgements ({error}); move it away") from error
    if not text:
        return []
    table = csv.DictReader(io.StringIO(text, newline=""))
    missing = [name for name in ("rung", "fingerprint", "status", *_NUMBERS) if name not in (table.fieldnames or ())]
    if missing:
        raise ValueError(f"{path} is not a file of judgements: the column {missing[0]} is missing; move it away")
    found = []
    try:
        for row in table:
            found.append(_judgement(row))
    except (csv.Error, ValueError) as error:
        raise ValueError(
            f"{path}, line {table.reader.line_num} is damaged ({error}); delete the line, it is made again"
        ) from error
    return found


def _judgement(row: Mapping[str | None, Any]) -> Judgement:
    if None in row or any(row.get(name, "") is None for name in _COLUMNS):
        raise ValueError("it has not as many cells as there are columns")
    values: dict[str, Any] = {name: row.get(name) or "" for name in _COLUMNS}
    values |= {name: kind(values[name]) for name, kind in _NUMBERS.items()}
    values |= {name: float(values[name]) if values[name] else None for name in _MAYBE}
    return Judgement(**{**values, "status": Status(values["status"]).value})


def append_judgement(path: Path, one: Judgement, more: Mapping[str, object] | None = None) -> None:
    """Adds a row, after the header where the file is new.

    A file that ends within a row, because its writer was killed, loses that row first. A row is one line: line ends
    within a text become spaces.

    Args:
        more: further columns; those that the file has and `more` does not stay empty.

    Raises:
        ValueError: a further column that the file does not have.
    """
    row = {name: _on_one_line(value) for name, value in {**asdict(one), **(more or {})}.items()}
    known = _header(path)
    unknown = [name for name in row if known and name not in known]
    if unknown:
        raise ValueError(f"{path} has no column {unknown[0]}, expected some of {', '.join(known)}; use another file")
    with path.open("a", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, known or tuple(row), lineterminator="\n")
        if not known:
            table.writeheader()
        table.writerow(row)


def _header(path: Path) -> tuple[str, ...]:
    """The columns of a file, none where it is new; a last line without its end is cut off."""
    if not path.exists():
        return ()
    content = path.read_bytes()
    whole = _whole(content)
    if whole < len(content):
        with path.open("rb+") as file:
            file.truncate(whole)  # in place: whoever is killed now loses nothing more
    return tuple(next(csv.reader([content[:whole].decode().partition("\n")[0]]), ()))


def _whole(content: bytes) -> int:
    """How many bytes of a file are whole lines."""
    return content.rfind(b"\n") + 1


def _on_one_line(value: object) -> object:
    return " ".join(value.splitlines()) if isinstance(value, str) else value


def keys(judgements: Iterable[Judgement]) -> set[tuple[str, int, str]]:
    """What needs not be judged again."""
    return {one.key for one in judgements}
