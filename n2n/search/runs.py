"""What became of the runs under a folder, read from their files; a damaged run is told, and hides no other."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from n2n.evaluate.base import Status
from n2n.search import store
from n2n.search.errors import ArtefactError
from n2n.search.files import LOCK, read_json
from n2n.search.lock import held_by
from n2n.search.options import BUDGETS

DEPTH = 3
"""How many folders below the one that is named runs are looked for."""
CONFIG, ENVIRONMENT, RESULT, LOG = "config.json", "environment.json", "result.json", "run.log"
SWEEP = "states.json"
"""What a sweep's folder holds, and a run's does not."""


class State(StrEnum):
    """What a run folder is."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    """It was stopped by its user, and concluded with what there was."""
    RUNNING = "running"
    STOPPED = "stopped"
    """It ended without a result: its process was killed, say. What was judged is in its store."""
    BROKEN = "broken"
    """A file is damaged or cannot be read."""


@dataclass(frozen=True)
class Best:
    """The best finished student: accuracy on the test split in 0..1, and how many times fewer parameters.

    `compression` is None where there was no teacher.
    """

    test_accuracy: float
    parameters: int
    compression: float | None


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        name: its path below the folder that was looked through; "." is that folder itself.
        problem: what is wrong with a broken one, and what to do.
        teacher: its name, or that of the published space; "" where the configuration does not say.
        budget: as it was given, by option; empty where there was none.
        judged: students so far, without repeats.
        best: None where no student is finished.
        when: the beginning, ISO 8601 in UTC, by the date of `config.json`.
        seconds: the search with what follows it; of a run without a result, from the beginning to the last batch.
    """

    name: str
    state: State
    problem: str = ""
    teacher: str = ""
    data: str = ""
    agent: str = ""
    budget: Mapping[str, int | float | str] | None = None
    judged: int | None = None
    best: Best | None = None
    when: str = ""
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


def runs(folder: Path) -> list[Run]:
    """The runs in a folder and the folders below it, the newest last.

    Raises:
        ArtefactError: there is no such folder, or it cannot be read.
    """
    try:
        if not folder.is_dir():
            raise ArtefactError(f"{folder} is no folder; name the one in which the --out of your searches are")
        os.listdir(folder)
    except OSError as error:
        raise ArtefactError(f"{folder} cannot be read: {error.strerror}; check its permissions") from error
    found = [read_run(one, str(one.relative_to(folder))) for one in _run_folders(folder, DEPTH)]
    return sorted(found, key=lambda run: (run.when, run.name))


def _run_folders(folder: Path, depth: int) -> Iterator[Path]:
    """The run folders, without a look into them; folders that cannot be read are taken for runs, which will be told."""
    try:
        children = list(os.scandir(folder))
        below = [Path(one.path) for one in children if one.is_dir(follow_symlinks=False)]
    except OSError:
        yield folder
        return
    names = {child.name for child in children}
    if SWEEP in names and CONFIG not in names:
        names.discard(LOCK)  # of the sweep, whose trials are runs below it
    if store.FILE in names or LOCK in names or (CONFIG in names and names & {ENVIRONMENT, RESULT}):
        yield folder
    elif depth:
        for child in sorted(below):
            if not child.name.startswith("."):
                yield from _run_folders(child, depth - 1)


def read_run(folder: Path, name: str) -> Run:
    """What the files of one run folder say."""
    try:
        return _read(folder, name)
    except ArtefactError as error:
        return Run(name, State.BROKEN, str(error))
    except OSError as error:
        return Run(name, State.BROKEN, f"{error.filename or folder} cannot be read: {error.strerror}")


def _read(folder: Path, name: str) -> Run:
    holder = held_by(folder)
    if holder is not None and not (folder / CONFIG).exists():  # it has only just begun
        return Run(name, State.RUNNING, when=holder.since)
    config = read_json(folder / CONFIG, ("agent", "data"))
    result = read_json(folder / RESULT) if (folder / RESULT).exists() else None
    began = (folder / CONFIG).stat().st_mtime
    teacher = config.get("teacher")
    run = Run(
        name,
        State.STOPPED if holder is None else State.RUNNING,
        teacher=str(teacher.get("name", "")) if isinstance(teacher, dict) else str(config.get("space", "")),
        data=str(config["data"]),
        agent=str(config["agent"]),
        budget={option: config[option] for option in BUDGETS if config.get(option) is not None},
        when=datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds"),
    )
    if result is not None and holder is None:  # with a holder it is gone on with
        if (folder / store.FILE).exists():
            with store.reading(folder / store.FILE):  # a damaged one is told
                pass
        return _ended(run, result, folder / RESULT)
    if not (folder / store.FILE).exists():  # killed, or asked, before the first student
        return replace(run, judged=0)
    last = max((folder / one).stat().st_mtime for one in _LIVE if (folder / one).exists())
    records = store.first_judgements(store.read_records(folder))
    judged = sum(one.evaluation.status is not Status.INVALID for one in records)  # a refusal is not counted
    return replace(run, judged=judged, seconds=round(max(0.0, last - began), 1))


_LIVE = (store.FILE, f"{store.FILE}-wal", LOG)
"""Files that are written as a search goes on."""


def _ended(run: Run, result: Mapping[str, Any], path: Path) -> Run:
    """The run with what `result.json` says.

    Raises:
        ArtefactError: that is not what a run writes.
    """
    try:
        teacher, students = result["teacher"], result["students"]
        return replace(
            run,
            state=State.INTERRUPTED if result["stopped"] == "interrupted" else State.FINISHED,
            teacher=str(teacher["name"]) if teacher else run.teacher,
            judged=int(result["evaluations"]),
            best=_best(teacher and teacher["figures"], students[0]["figures"]) if students else None,
            seconds=round(float(result["seconds"]) + float(result["finish_seconds"]), 1),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ArtefactError(
            f"{path} does not hold what a run writes ({type(error).__name__}: {error}); it was damaged or edited: "
            "restore it or run again"
        ) from error


def _best(teacher: Mapping[str, Any] | None, student: Mapping[str, Any]) -> Best:
    parameters = int(student["parameters"])
    times = None if teacher is None else int(teacher["parameters"]) / parameters
    return Best(float(student["test_accuracy"]), parameters, times)
