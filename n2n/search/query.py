"""SQL on the judgements of a run: statements that read, and nothing else."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from n2n.search.errors import ArtefactError
from n2n.search.store import FILE, reading

_READS = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
_TELLS = ("table_info", "table_xinfo", "table_list", "user_version")
"""Pragmas that say something about the file; a value to set is refused."""


class QueryError(ValueError):
    """A statement is not SQL, does not fit the tables, or would change something; the message says what there is."""


@dataclass(frozen=True)
class Answer:
    """The rows of a statement; a value is None, a number, a text or bytes."""

    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]


def query(folder: Path, sql: str) -> Answer:
    """Runs one statement on the `evaluations.sqlite` of a run folder, whether the run has ended or not.

    Raises:
        ArtefactError: the folder has no store, or one that cannot be read.
        QueryError: the statement does not work; the message names the columns that exist.
    """
    path = folder / FILE
    with reading(path) as connection:
        names = [f"{table} ({', '.join(columns)})" for table, columns in _tables(connection).items()]
        connection.set_authorizer(_only_reads)
        try:
            cursor = connection.execute(sql)
            if cursor.description is None:
                raise QueryError("there is no statement to run; say e.g. SELECT stage, accuracy FROM evaluations")
            return Answer(tuple(one[0] for one in cursor.description), tuple(cursor.fetchall()))
        except (sqlite3.OperationalError, sqlite3.ProgrammingError, sqlite3.Warning) as error:
            raise QueryError(
                f"SQL: {str(error).rstrip('.')}. The file has: {'; '.join(names) or 'no table'}"
            ) from error
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_AUTH:
                raise QueryError(
                    "SQL: only statements that read are run, such as SELECT; nothing was changed"
                ) from error
            raise ArtefactError(f"{path} is damaged ({error}); restore it or run again") from error


def _tables(connection: sqlite3.Connection) -> dict[str, list[str]]:
    """The columns of each table."""
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")]
    return {
        name: [column for (column,) in connection.execute("SELECT name FROM pragma_table_info(?)", (name,))]
        for name in names
    }


def _only_reads(action: int, first: str | None, second: str | None, database: str | None, by: str | None) -> int:
    """Opening a file read-only is not enough: `ATTACH` would open, or make, another one."""
    tells = action == sqlite3.SQLITE_PRAGMA and str(first).lower() in _TELLS
    allowed = action in _READS or (tells and (second is None or str(first).lower() != "user_version"))
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY
