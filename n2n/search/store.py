"""The memory of a run: every judgement, in one SQLite file, on disk before the agent learns from it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from n2n.evaluate.base import Evaluation, Status
from n2n.search.errors import ArtefactError, WriteError

FILE = "evaluations.sqlite"
VERSION = 1
"""Of the file, its `PRAGMA user_version`; 0 is one from before there were numbers. A later one than this is refused, so
it goes up with every change that a reader of today would misunderstand; columns that are only added are not one."""

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
    ("rung", "TEXT NOT NULL DEFAULT ''"),  # of the ladder, or "prefilter:NAME"; empty where there is neither
    ("estimate", "REAL"),  # accuracy on the ladder's last rung, measured or predicted
)
COLUMNS: tuple[str, ...] = tuple(name for name, _ in _FIELDS)
EARLIER = 16
"""How many of these columns the first stores had; one from then gets the others, empty, when a run writes to it."""


@dataclass(frozen=True)
class Record:
    """One judgement in a run: whose turn it was, what came out, and what it was worth."""

    stage: str
    iteration: int
    reward: float
    cached: bool
    evaluation: Evaluation


class Store:
    """Appends records, one transaction per batch, and reads them back in order.

    While it is open the file has a write-ahead log beside it (`-wal`, `-shm`), so that others may read it and none
    waits for the other; a store that was closed is one plain file, which a read-only disk can hold.
    """

    def __init__(self, path: Path) -> None:
        """Opens or makes the file; one of an earlier version is brought to this one.

        Raises:
            ArtefactError: the file is there but is not a store, or one of a later version.
            WriteError: the file system refused.
        """
        self.path = path
        try:
            self._connection = sqlite3.connect(path)
            self._prepare()
        except sqlite3.OperationalError as error:  # what SQLite says of disks, permissions and locks
            raise WriteError(
                f"cannot open or write {path}: {error}. Free some space, or check the folder and its permissions."
            ) from error
        except sqlite3.DatabaseError as error:
            raise _no_store(path, error) from error

    def _prepare(self) -> None:
        """Makes the table, or adds the columns that it lacks; closes the file where that fails."""
        try:
            _check(self._connection, self.path)
            # Where the file system cannot share memory SQLite keeps to its usual journal, which is as safe.
            self._connection.execute("PRAGMA journal_mode = WAL")
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                columns = ", ".join(f"{name} {kind}" for name, kind in _FIELDS)
                self._connection.execute(f"CREATE TABLE IF NOT EXISTS evaluations (id INTEGER PRIMARY KEY, {columns})")
                for name, kind in _FIELDS[len(_columns(self._connection)) - 1 :]:
                    self._connection.execute(f"ALTER TABLE evaluations ADD COLUMN {name} {kind}")
                self._connection.execute(f"PRAGMA user_version = {VERSION}")
        except (sqlite3.DatabaseError, ArtefactError):
            self._connection.close()
            raise

    def add(self, records: Sequence[Record]) -> None:
        """Appends a batch: all of it or, where the disk is full, none of it.

        Raises:
            WriteError: the file system refused.
        """
        self._write(records)

    def _write(self, records: Sequence[Record], before: tuple[str, tuple[object, ...]] | None = None) -> None:
        """In one transaction."""
        marks = ", ".join("?" for _ in COLUMNS)
        try:
            with self._connection:
                if before is not None:
                    self._connection.execute(*before)
                self._connection.executemany(
                    f"INSERT INTO evaluations ({', '.join(COLUMNS)}) VALUES ({marks})", [_row(one) for one in records]
                )
        except sqlite3.OperationalError as error:
            raise WriteError(
                f"cannot write {self.path}: {error}. Earlier batches are safe; free some space."
            ) from error

    def replace(self, stage: str, iteration: int, records: Sequence[Record]) -> None:
        """Puts a batch in the place of what is there of it, e.g. of the part that an interrupt had left.

        Raises:
            WriteError: the file system refused; then nothing has changed.
        """
        self._write(records, ("DELETE FROM evaluations WHERE stage = ? AND iteration = ?", (stage, iteration)))

    def records(self) -> list[Record]:
        """Everything so far, in the order in which it was added."""
        return _records(self._connection, COLUMNS)

    def close(self) -> None:
        """Closes the file; it needs nothing else to be whole."""
        with suppress(sqlite3.Error):  # somebody reads it just now: the log stays beside it, and nothing is lost
            self._connection.execute("PRAGMA journal_mode = DELETE")
        self._connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A store, of a run that has ended or is under way, opened so that nothing can be changed, on a read-only disk too.

    Raises:
        ArtefactError: there is no such file, it cannot be read, is not a store, or is one of a later version.
    """
    try:
        there = path.is_file()
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    if not there:
        raise ArtefactError(f"{path} is missing; is {path.parent} the folder of a run?")
    try:
        connection = _connect(path)
    except sqlite3.OperationalError as error:
        raise _unreadable(path, str(error)) from error
    except sqlite3.DatabaseError as error:
        raise _no_store(path, error) from error
    with closing(connection):
        _check(connection, path)
        yield connection


def _connect(path: Path) -> sqlite3.Connection:
    """The file, opened for reading.

    To read a file with a write-ahead log SQLite makes files beside it. Where it may not, and no log is there that could
    hold anything, it is told that nobody else is writing either.
    """
    try:
        return _opened(path, "mode=ro")
    except sqlite3.OperationalError:
        log = path.with_name(f"{path.name}-wal")
        if log.exists() and log.stat().st_size:
            raise
        return _opened(path, "immutable=1")


def _opened(path: Path, how: str) -> sqlite3.Connection:
    """A connection over which a page has been read: only then does SQLite open the file."""
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?{how}", uri=True)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection


def read_records(folder: Path) -> list[Record]:
    """The records of a run folder; nothing in it is written.

    Raises:
        ArtefactError: the folder has no store, one that cannot be read, a damaged one, or one of a later version.
    """
    path = folder / FILE
    with reading(path) as connection:
        try:
            there = _columns(connection)[1:]
            return _records(connection, there) if there else []
        except sqlite3.OperationalError as error:
            raise _unreadable(path, str(error)) from error
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:  # a page, or a value, that no run wrote
            raise ArtefactError(f"{path} is damaged ({error}); restore it or run again") from error


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Refuses a file of a later version, and a table that is not the beginning of ours; a new file has none.

    Raises:
        ArtefactError: as said.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise ArtefactError(
            f"{path} is a store of version {version}, and this N2N reads those up to version {VERSION}; use the N2N"
            " that wrote it, or a later one"
        )
    found, expected = _columns(connection), ("id", *COLUMNS)
    if found and (len(found) <= EARLIER or found != expected[: len(found)]):
        raise ArtefactError(f"{path} has the columns {found}, expected {expected}; it is of another version")


def _columns(connection: sqlite3.Connection) -> tuple[str, ...]:
    return tuple(row[1] for row in connection.execute("PRAGMA table_info(evaluations)"))


def _no_store(path: Path, error: sqlite3.DatabaseError) -> ArtefactError:
    return ArtefactError(f"{path} is not a store of evaluations ({error}); move it away or use another folder")


def _unreadable(path: Path, why: str) -> ArtefactError:
    return ArtefactError(
        f"{path} cannot be read: {why}. Check the permissions, or copy the folder to a place where you may write"
    )


def _records(connection: sqlite3.Connection, columns: Sequence[str]) -> list[Record]:
    rows = connection.execute(f"SELECT {', '.join(columns)} FROM evaluations ORDER BY id")
    return [_record(dict(zip(columns, row, strict=True))) for row in rows]


def first_judgements(records: Iterable[Record]) -> list[Record]:
    """The records without the repeats that the cache answered, and without students that a prefilter held back."""
    return [one for one in records if not one.cached and not one.evaluation.filtered]


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


def _record(values: dict[str, object]) -> Record:
    """From the columns that a store has: what one of before does not have is as where it was not measured."""
    stage, iteration, reward, cached = (values.pop(name) for name in COLUMNS[:4])
    values["status"] = Status(str(values["status"]))
    values["seed"] = int(str(values["seed"]))
    evaluation = Evaluation(**values)  # type: ignore[arg-type]  # SQLite hands back objects; _FIELDS fixes their kinds
    return Record(str(stage), int(str(iteration)), float(str(reward)), bool(cached), evaluation)
