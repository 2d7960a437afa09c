"""Judgements that outlive a run: one SQLite file for one teacher and its data, shared by all runs of both."""

from __future__ import annotations

import json
import sqlite3
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import final

from n2n.evaluate.base import Evaluate, Evaluation, Status
from n2n.evaluate.cached import Keeping, Streaming
from search_spaces.base import Architecture

FORMAT = "1"
_SECONDS = 30.0
"""How long another run may hold the file before this one complains."""


class CacheError(ValueError):
    """A file of judgements is damaged, of another version, or of another teacher or data."""


@final
class Memory:
    """Judgements by (recipe, seed, student) in a file that belongs to one teacher and its data.

    Where several runs share it, only students with status OK are kept: why one failed may lie in the machine. Several
    runs may use the file at once.

    Attributes:
        path: of the file.
        answered: how many judgements the file has answered.
    """

    def __init__(self, path: str | Path, *, teacher: str, data: str, own: bool = False) -> None:
        """Opens the file, or makes it.

        Args:
            path: of the file; its folder must be there.
            teacher: fingerprint of the teacher's weights.
            data: fingerprint of the training data.
            own: the file is that of one run: it keeps students that are not OK, too.

        Raises:
            CacheError: not such a file, one of another version, or of another teacher or data (both are named).
        """
        self.path = Path(path)
        self.answered = 0
        self.own = own
        wanted = {"format": FORMAT, "teacher": teacher, "data": data}
        try:
            with self._open() as connection:
                _refuse_others(connection, self.path)
                connection.execute("CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
                connection.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", wanted.items())
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS judgements (recipe TEXT, seed TEXT, fingerprint TEXT, evaluation TEXT"
                    " NOT NULL, PRIMARY KEY (recipe, seed, fingerprint))"
                )
                found = dict(connection.execute("SELECT name, value FROM meta").fetchall())
        except sqlite3.Error as error:
            raise CacheError(
                f"{path} cannot be used as a file of judgements ({error}); name a file in a folder that is there and"
                " can be written, or move this one away"
            ) from error
        for name, value in wanted.items():
            if found.get(name) != value:
                raise CacheError(
                    f"{path} holds judgements of another {name}: {found.get(name)}, while this search has {value}; use"
                    " another file for it"
                )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, timeout=_SECONDS)) as connection, connection:
            yield connection

    def get(self, recipe: str, seed: int, students: Sequence[str]) -> dict[str, Evaluation]:
        """The judgements of those students, by fingerprint, that are there.

        Raises:
            CacheError: the file is damaged.
        """
        try:
            with self._open() as connection:
                rows = [
                    row
                    for student in students
                    for row in connection.execute(
                        "SELECT fingerprint, evaluation FROM judgements WHERE recipe = ? AND seed = ? AND"
                        " fingerprint = ?",
                        (recipe, str(seed), student),
                    )
                ]
            read = {fingerprint: _read(text) for fingerprint, text in rows}
        except (sqlite3.Error, ValueError, TypeError) as error:
            raise CacheError(f"{self.path} is damaged ({error}); move it away: it can be made again") from error
        found = {key: one for key, one in read.items() if one.status is Status.OK or self.own}
        self.answered += len(found)
        return found

    def put(self, recipe: str, seed: int, evaluations: Sequence[Evaluation]) -> None:
        """Keeps the judgements; where the file system refuses, a warning says so and nothing is lost."""
        rows = [
            (recipe, str(seed), one.fingerprint, json.dumps(asdict(one)))
            for one in evaluations
            if one.status is Status.OK or self.own
        ]
        try:
            with self._open() as connection:
                connection.executemany("INSERT OR REPLACE INTO judgements VALUES (?, ?, ?, ?)", rows)
        except sqlite3.DatabaseError as error:
            warnings.warn(
                f"{self.path} cannot be written ({error}): these judgements are not kept for later runs",
                RuntimeWarning,
                stacklevel=2,
            )


def _read(text: str) -> Evaluation:
    values = json.loads(text)
    return Evaluation(**{**values, "status": Status(values["status"])})


@final
class Remembered:
    """See `remembered`; `hits` counts the students that the file answered."""

    def __init__(self, evaluate: Evaluate, memory: Memory, recipe: str, seed: int) -> None:
        self._evaluate, self._memory, self._recipe, self._seed = evaluate, memory, recipe, seed
        self.hits = 0

    def __call__(self, students: Sequence[Architecture]) -> list[Evaluation]:
        """One evaluation each, in the same order; the inner evaluator judges those that the file does not have."""
        return self.stream(students, lambda one: None)

    def stream(self, students: Sequence[Architecture], keep: Callable[[Evaluation], None]) -> list[Evaluation]:
        """See `Streaming`; of an inner evaluator that is one, each student is in the file as soon as it is judged."""
        known = self._memory.get(self._recipe, self._seed, [one.fingerprint for one in students])
        self.hits += len(known)
        new = [one for one in students if one.fingerprint not in known]
        for one in known.values():
            keep(one)

        def enter(*judged: Evaluation) -> None:
            self._memory.put(self._recipe, self._seed, judged)
            for one in judged:
                keep(one)

        if new and isinstance(self._evaluate, Streaming):
            judged = self._evaluate.stream(new, enter)
        else:
            judged = self._evaluate(new) if new else []
            enter(*judged)
        known.update({one.fingerprint: found for one, found in zip(new, judged, strict=True)})
        return [known[student.fingerprint] for student in students]

    def known(self, students: Sequence[Architecture]) -> list[Evaluation]:
        """The evaluations of those students that were judged before an interrupt; the file keeps them, too."""
        judged: list[Evaluation] = self._evaluate.known(students) if isinstance(self._evaluate, Keeping) else []
        self._memory.put(self._recipe, self._seed, judged)
        found = {one.fingerprint: one for one in judged}
        asked = [one.fingerprint for one in students if one.fingerprint not in found]
        found.update(self._memory.get(self._recipe, self._seed, asked))
        return [found[one.fingerprint] for one in students if one.fingerprint in found]


def remembered(evaluate: Evaluate, memory: Memory, *, recipe: str, seed: int) -> Remembered:
    """Asks a file before the evaluator, and keeps there what the evaluator says.

    Args:
        recipe: what the judgement depends on besides student and seed, e.g. `Distillation.recipe_key`.
        seed: of the run.
    """
    return Remembered(evaluate, memory, recipe, seed)


def _refuse_others(connection: sqlite3.Connection, path: Path) -> None:
    """Refuses a database that holds something else, before anything is written into it.

    Raises:
        CacheError: it has other tables.
    """
    tables = {str(name) for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    others = sorted(name for name in tables - {"meta", "judgements"} if not name.startswith("sqlite_"))
    if others:
        raise CacheError(
            f"{path} is a database of something else (it has the table {', '.join(others)}): name another file for the"
            " judgements"
        )
