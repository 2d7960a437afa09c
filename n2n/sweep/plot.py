"""The picture of a sweep: the finished students of all trials."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from n2n.report.plots import figure_of
from n2n.search.files import read_json
from n2n.search.front import pareto
from n2n.search.resume import RESULT
from n2n.sweep.rows import Row
from n2n.sweep.table import SEED, cell

Point = tuple[float, float]
"""Parameters, and test accuracy in 0..1."""


def colour_key(rows: Sequence[Row]) -> str | None:
    """The key that colours tell: the first that varies, the seed only where nothing else does."""
    keys = [key for row in rows[:1] for key in row.trial.varied]
    return next((key for key in keys if key != SEED), next(iter(keys), None))


def points(rows: Sequence[Row], trials: Path) -> dict[str, list[Point]]:
    """The finished students of the finished trials by the value of the colour's key. Raises `ArtefactError`."""
    key = colour_key(rows)
    found: dict[str, list[Point]] = {}
    for row in rows:
        if row.state != "finished":
            continue
        label = "students" if key is None else f"{key} {_label(row.trial.varied[key])}"
        for student in read_json(trials / row.trial.name / RESULT, ("students",))["students"]:
            figures = student["figures"]
            found.setdefault(label, []).append((figures["parameters"], figures["test_accuracy"]))
    return found


def plot_trials(path: Path, rows: Sequence[Row], trials: Path) -> None:
    """Test accuracy against parameters: students by colour, the front of each colour, and the teachers.

    Raises:
        ArtefactError: the result of a finished trial is damaged.
        WriteError: the file system refused.
    """
    by_label = points(rows, trials)
    teachers = dict.fromkeys(
        (row.teacher, row.teacher_parameters, row.teacher_test_accuracy) for row in rows if row.state == "finished"
    )

    def draw(axes: Any) -> None:
        for number, (label, of) in enumerate(by_label.items()):
            best = [of[index] for index in pareto([one[0] for one in of], [one[1] for one in of])]
            axes.scatter(*_scaled(of), s=18, color=f"C{number % 10}", label=label)
            axes.step(*_scaled(best), where="post", color=f"C{number % 10}", linewidth=1)
        for name, parameters, accuracy in teachers:
            axes.scatter(*_scaled([(parameters or 0, accuracy or 0.0)]), marker="s", color="k", label=f"teacher {name}")
        if by_label:
            axes.set_xscale("log")
            axes.legend(fontsize="small")
        axes.set_xlabel("parameters (M)")
        axes.set_ylabel("test accuracy (%)")

    figure_of(path, draw)


def _scaled(of: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [one[0] / 1e6 for one in of], [100 * one[1] for one in of]


def _label(value: Any) -> str:
    return str(value) if isinstance(value, str) else json.dumps(cell(value))
