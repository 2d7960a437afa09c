"""What became of a trial, read from its run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from n2n.evaluate.base import Status
from n2n.search.errors import ArtefactError, WriteError
from n2n.search.files import read_json
from n2n.search.resume import CONFIG, RESULT
from n2n.search.store import FILE, first_judgements, read_records
from n2n.sweep.trials import Trial

State = Literal["waiting", "running", "finished", "stopped", "failed", "cut off"]
"""`stopped`: the scheduler ended it for being worse than others; `cut off`: it can be gone on with."""
ENDED = ("finished", "stopped")
"""States of a trial that a resumed sweep leaves alone."""


@dataclass(frozen=True)
class Ending:
    """How a trial ended, as the sweep keeps it between its attempts; `reason` says why it did not finish."""

    state: State
    reason: str = ""


@dataclass(frozen=True)
class Row:
    """A line of `trials.csv`.

    `students` were judged, `reused` of them by the file that the trials share; `seconds` are those of the search, with
    the time that reused judgements of the run's own file had taken. The figures are of the best finished student:
    accuracies in 0..1, latency in ms, size in MB; None where there is none.
    """

    trial: Trial
    state: State
    reason: str
    students: int = 0
    reused: int | None = None
    seconds: float | None = None
    best_reward: float | None = None
    test_accuracy: float | None = None
    validation_accuracy: float | None = None
    parameters: int | None = None
    macs: int | None = None
    latency_ms: float | None = None
    size_mb: float | None = None
    meets_budget: bool | None = None
    teacher: str = ""
    teacher_test_accuracy: float | None = None
    teacher_parameters: int | None = None


FIGURES = ("test_accuracy", "validation_accuracy", "parameters", "macs", "latency_ms", "size_mb")
"""Fields of a row that are fields of the best student's figures under the same name."""


def is_finished(folder: Path) -> bool:
    """Whether the run in a folder came to its end (an interrupted one did not).

    Raises:
        ArtefactError: its result is damaged.
    """
    return (folder / RESULT).is_file() and read_json(folder / RESULT, ("stopped",))["stopped"] != "interrupted"


def is_begun(folder: Path) -> bool:
    """Whether there is a run in the folder that can be gone on with or has ended."""
    return (folder / CONFIG).is_file()


def read_row(trial: Trial, folder: Path, ending: Ending) -> Row:
    """The line of a trial; a damaged folder is a failed trial with the reason."""
    try:
        if is_finished(folder):
            return _finished(trial, folder, read_json(folder / RESULT, ("teacher", "students", "evaluations")))
        students, best = _judged(folder)
    except (ArtefactError, WriteError) as error:
        return Row(trial, "failed", str(error))
    state: State = "cut off" if ending.state in ("running", "finished") else ending.state
    if ending.state == "waiting" and is_begun(folder):
        state = "cut off"
    return Row(trial, state, ending.reason or _REASONS.get(state, ""), students=students, best_reward=best)


_REASONS: Mapping[str, str] = {"waiting": "it was not begun", "cut off": "it was interrupted; it can be gone on with"}


def _finished(trial: Trial, folder: Path, result: Mapping[str, Any]) -> Row:
    teacher = result["teacher"]
    best: Mapping[str, Any] = next(iter(result["students"]), {})
    figures = best.get("figures", {})
    return Row(
        trial,
        "finished",
        "" if best else "no student was finished: none could be judged",
        students=result["evaluations"],
        reused=result.get("reused"),
        seconds=round(result["seconds"] + result["finish_seconds"], 3),
        best_reward=_judged(folder)[1],
        meets_budget=not best["violations"] if best else False,
        teacher=teacher["name"],
        teacher_test_accuracy=teacher["figures"]["test_accuracy"],
        teacher_parameters=teacher["figures"]["parameters"],
        **{name: figures.get(name) for name in FIGURES},
    )


def _judged(folder: Path) -> tuple[int, float | None]:
    """How many students were judged, and the best reward; (0, None) before the first."""
    if not (folder / FILE).is_file():
        return 0, None
    records = read_records(folder)
    judged = [one for one in first_judgements(records) if one.evaluation.status is not Status.INVALID]
    best = max((one.reward for one in records if not one.evaluation.filtered), default=None)
    return len(judged), best
