"""The memory of a run: every judgement, in one SQLite file, on disk before the agent learns from it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from n2n.evaluate.base import Evaluation, Status
from n2n.search.errors import ArtefactError, WriteError

FILE = "evaluations.sqlite"

_FIELDS: tuple[tuple[str, str], ...] = (
    ("stage", "TEXT NOT NULL"),  # "removal" or "shrinkage"
    ("iteration", "INTEGER NOT NULL"),  # rollout batch within the stage, from 0
    ("reward", "REAL NOT NULL"),
    ("cached", "INTEGER NOT NULL"),  # 1 where the run had judged this student before
    ("fingerprint", "TEXT NOT NULL"),
    ("architecture", "TEXT NOT NULL"),  # JSON
    ("status", "TEXT NOT NULL"),
    ("reason", "TEXT NOT NULL"),
    ("accuracy", "REAL"),  # validation, 0..1
    ("loss", "REAL"),
    ("parameters", "INTEGER"),
    ("macs", "INTEGER"),
    ("seconds", "REAL NOT NULL"),
    ("seed", "TEXT NOT NULL"),  # a text, for SQLite's integers end at 2**63 - 1
    ("fidelity", "TEXT NOT NULL"),
    ("latency_ms", "REAL"),
    ("latency_iqr_ms", "REAL"),
    ("latency_device", "TEXT"),
    ("size_mb", "REAL"),
    ("agreement", "REAL"),  # of the logits with the teacher's, at most 1
    ("score", "REAL"),  # training-free, where the student was scored
    ("rung", "TEXT NOT NULL DEFAULT ''"),  # of the ladder; empty where there is none
    ("estimate", "REAL"),  # accuracy on the ladder's last rung, measured or predicted
)
COLUMNS: tuple[str, ...] = tuple(name for name, _ in _FIELDS)
EARLIER = 16
"""How many of these columns the first version had; the store of a run from then gets the others, empty."""


@dataclass(frozen=True)
class Record:
    """One judgement in a run: whose turn it was, what came out, and what it was worth."""

    stage: str
    iteration: int
    reward: float
    cached: bool
    evaluation: Evaluation


class Store:
    """Appends records, one transaction per batch, and reads them back in order."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the file.

        Raises:
            ArtefactError: the file is there but is not a store of this version.
            WriteError: the file system refused.
        """
        self.path = path
        try:
            self._connection = sqlite3.connect(path)
            found = self._prepare()
        except sqlite3.OperationalError as error:  # what SQLite says of disks, permissions and locks
            raise WriteError(
                f"cannot open or write {path}: {error}. Free some space, or check the folder and its permissions."
            ) from error
        except sqlite3.DatabaseError as error:
            raise ArtefactError(
                f"{path} is not a store of evaluations ({error}); move it away or use another folder"
            ) from error
        if found != ("id", *COLUMNS):
            self._connection.close()
            raise ArtefactError(
                f"{path} has the columns {found}, expected {('id', *COLUMNS)}; it is of another version"
            )

    def _prepare(self) -> tuple[str, ...]:
        """The columns that the table has, made where there was none; closes the file where that fails."""
        try:
            with self._connection:
                columns = ", ".join(f"{name} {kind}" for name, kind in _FIELDS)
                self._connection.execute(f"CREATE TABLE IF NOT EXISTS evaluations (id INTEGER PRIMARY KEY, {columns})")
                found = self._columns()
                if len(found) > EARLIER and found == ("id", *COLUMNS)[: len(found)]:
                    for name, kind in _FIELDS[len(found) - 1 :]:
                        self._connection.execute(f"ALTER TABLE evaluations ADD COLUMN {name} {kind}")
            return self._columns()
        except sqlite3.DatabaseError:
            self._connection.close()
            raise

    def _columns(self) -> tuple[str, ...]:
        return tuple(row[1] for row in self._connection.execute("PRAGMA table_info(evaluations)"))

    def add(self, records: Sequence[Record]) -> None:
        """Appends a batch: all of it or, where the disk is full, none of it.

        Raises:
            WriteError: the file system refused.
        """
        marks = ", ".join("?" for _ in COLUMNS)
        try:
            with self._connection:
                self._connection.executemany(
                    f"INSERT INTO evaluations ({', '.join(COLUMNS)}) VALUES ({marks})", [_row(one) for one in records]
                )
        except sqlite3.OperationalError as error:
            raise WriteError(
                f"cannot write {self.path}: {error}. Earlier batches are safe; free some space."
            ) from error

    def clear(self) -> None:
        """Forgets everything; a resumed run enters it again."""
        try:
            with self._connection:
                self._connection.execute("DELETE FROM evaluations")
        except sqlite3.OperationalError as error:
            raise WriteError(f"cannot write {self.path}: {error}. Check the folder and its permissions.") from error

    def records(self) -> list[Record]:
        """Everything so far, in the order in which it was added."""
        rows = self._connection.execute(f"SELECT {', '.join(COLUMNS)} FROM evaluations ORDER BY id")
        return [_record(row) for row in rows]

    def close(self) -> None:
        """Closes the file; it needs nothing else to be whole."""
        self._connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


def read_records(folder: Path) -> list[Record]:
    """The records of a run folder.

    Raises:
        ArtefactError: the folder has no store, or a damaged one.
        WriteError: the file system does not let it be opened.
    """
    path = folder / FILE
    if not path.is_file():
        raise ArtefactError(f"{path} is missing; is {folder} the folder of a run?")
    try:
        with closing(Store(path)) as store:
            return store.records()
    except sqlite3.DatabaseError as error:
        raise ArtefactError(f"{path} is damaged ({error}); restore it or run again") from error


def first_judgements(records: Iterable[Record]) -> list[Record]:
    """The records without the repeats that the cache answered."""
    return [one for one in records if not one.cached]


def _row(record: Record) -> tuple[object, ...]:
    one = record.evaluation
    return (
        record.stage,
        record.iteration,
        record.reward,
        int(record.cached),
        one.fingerprint,
        one.architecture,
        str(one.status.value),
        one.reason,
        one.accuracy,
        one.loss,
        one.parameters,
        one.macs,
        one.seconds,
        str(one.seed),
        one.fidelity,
        one.latency_ms,
        one.latency_iqr_ms,
        one.latency_device,
        one.size_mb,
        one.agreement,
        one.score,
        one.rung,
        one.estimate,
    )


def _record(row: Sequence[object]) -> Record:
    values = dict(zip(COLUMNS, row, strict=True))
    stage, iteration, reward, cached = (values.pop(name) for name in COLUMNS[:4])
    values["status"] = Status(str(values["status"]))
    values["seed"] = int(str(values["seed"]))
    evaluation = Evaluation(**values)  # type: ignore[arg-type]  # SQLite hands back objects; _FIELDS fixes their kinds
    return Record(str(stage), int(str(iteration)), float(str(reward)), bool(cached), evaluation)
