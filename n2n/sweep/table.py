"""Means over seeds with their intervals, and the files that tell them."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.special import stdtrit

from n2n.networks.units import mac_text, millions
from n2n.report.tables import markdown
from n2n.search.files import write_csv, write_text
from n2n.sweep.rows import FIGURES, Row

SEED = "seed"
"""The key that means and intervals run over."""
CONFIDENCE = 0.95
MEASURES = ("test_accuracy", "parameters", "macs", "best_reward", "seconds")
"""The fields of a row that means are taken of."""
TRIALS, SUMMARY, PAGE, PICTURE = "trials.csv", "summary.csv", "summary.md", "front.png"


@dataclass(frozen=True)
class Interval:
    """A mean of `n` numbers, and the interval that holds the true one; without bounds where `n` is 1."""

    mean: float
    low: float | None
    high: float | None
    n: int


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """The mean and Student's interval, `mean ± t(1 - (1 - confidence) / 2; n - 1) s / sqrt(n)`.

    `s` is the sample's standard deviation (over n - 1). Student, *The probable error of a mean*, Biometrika 1908.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("t_interval needs one value at least, found none")
    mean, n = statistics.fmean(values), len(values)
    if n == 1:
        return Interval(mean, None, None, 1)
    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * statistics.stdev(values) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


@dataclass(frozen=True)
class Group:
    """Trials that differ in nothing but their seed; `means` are over those that finished, by the measure's name."""

    varied: Mapping[str, Any]
    trials: int
    finished: int
    met: int
    means: Mapping[str, Interval]


def grouped(rows: Sequence[Row]) -> list[Group]:
    """The combinations of the keys other than the seed, in the order of the rows."""
    members: dict[str, list[Row]] = {}
    for row in rows:
        members.setdefault(json.dumps(_without_seed(row), default=str), []).append(row)
    return [_group(of) for of in members.values()]


def _group(rows: Sequence[Row]) -> Group:
    finished = [row for row in rows if row.state == "finished"]
    means = {}
    for measure in MEASURES:
        values = [value for row in finished if (value := getattr(row, measure)) is not None]
        if values:
            means[measure] = t_interval(values)
    met = sum(bool(row.meets_budget) for row in finished)
    return Group(_without_seed(rows[0]), len(rows), len(finished), met, means)


def _without_seed(row: Row) -> dict[str, Any]:
    return {key: value for key, value in row.trial.varied.items() if key != SEED}


def write_tables(out: Path, rows: Sequence[Row], command: str) -> None:
    """Writes `trials.csv`, `summary.csv` and `summary.md`; `command` is how to go on. Raises `WriteError`."""
    varied = tuple(rows[0].trial.varied) if rows else ()
    results = ("students", "reused", "seconds", "best_reward", *FIGURES, "meets_budget", "teacher",
               "teacher_test_accuracy", "teacher_parameters")  # fmt: skip
    write_csv(
        out / TRIALS,
        ("trial", *varied, "state", "why_not_finished", *results),
        [[*_first_cells(row), *(cell(getattr(row, name)) for name in results)] for row in rows],
    )
    groups = grouped(rows)
    bounds = [f"{name}{end}" for name in MEASURES for end in ("", "_low", "_high")]
    write_csv(
        out / SUMMARY,
        (*(key for key in varied if key != SEED), "trials", "finished", "met_budget", *bounds),
        [_summary_cells(group) for group in groups],
    )
    write_text(out / PAGE, page(out.name, rows, groups, command))


def cell(value: Any) -> Any:
    """A value in a table: numbers and text as they are, yes and no as 1 and 0, lists as JSON."""
    if isinstance(value, bool):
        return int(value)
    return value if value is None or isinstance(value, int | float | str) else json.dumps(value, default=str)


def _first_cells(row: Row) -> list[Any]:
    return [row.trial.name, *map(cell, row.trial.varied.values()), row.state, row.reason]


def _summary_cells(group: Group) -> list[Any]:
    cells = [*map(cell, group.varied.values()), group.trials, group.finished, group.met]
    for measure in MEASURES:
        one = group.means.get(measure)
        cells += [None, None, None] if one is None else [one.mean, one.low, one.high]
    return cells


def page(name: str, rows: Sequence[Row], groups: Sequence[Group], command: str) -> str:
    """The summary as Markdown."""
    count = {state: sum(row.state == state for row in rows) for state in dict.fromkeys(row.state for row in rows)}
    parts = [
        f"# Sweep {name}",
        f"{len(rows)} trials: {', '.join(f'{number} {state}' for state, number in count.items())}.",
        markdown(*means_table(groups)),
        _explained(groups),
        f"![test accuracy against parameters]({PICTURE})",
        _unfinished(rows, command),
        _reuse(rows),
        f"Every trial is a run folder in `trials/` with a `report.md`; all rows are in `{TRIALS}`, the means in "
        f"`{SUMMARY}`. TensorBoard shows what Ray Tune logged: `tensorboard --logdir ray` (or the sweep's `storage`).",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def means_table(groups: Sequence[Group]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of the means, for people."""
    keys = tuple(groups[0].varied) if groups else ()
    header = (*keys, "finished", "test accuracy", "parameters", "MACs", "best reward", "met the budget")
    shapes = {
        "test_accuracy": lambda value: f"{value:.2%}",
        "parameters": lambda value: millions(round(value)),
        "macs": lambda value: mac_text(round(value)),
        "best_reward": lambda value: f"{value:.3f}",
    }
    rows = [
        (
            *(str(cell(value)) for value in one.varied.values()),
            f"{one.finished} of {one.trials}",
            *(interval_text(one.means.get(measure), shape) for measure, shape in shapes.items()),
            f"{one.met} of {one.finished}",
        )
        for one in groups
    ]
    return header, rows


def interval_text(one: Interval | None, shape: Any) -> str:
    """`93.10% (92.80% to 93.40%)`; the mean alone where there is no interval, empty where there is no mean."""
    if one is None:
        return ""
    return shape(one.mean) if one.low is None else f"{shape(one.mean)} ({shape(one.low)} to {shape(one.high)})"


def _explained(groups: Sequence[Group]) -> str:
    several = [one for group in groups for one in group.means.values() if one.n > 1]
    single = [group for group in groups if group.finished == 1]
    text = "Figures are of the best finished student of each trial; the test split is opened once, after the search."
    if several:
        text += f" In brackets: the {CONFIDENCE:.0%} t-interval of the mean over seeds."
    if single:
        text += f" {len(single)} of {len(groups)} rows rest on one finished seed: no interval can be given."
    return text


def _unfinished(rows: Sequence[Row], command: str) -> str:
    left = [(row.trial.name, row.state, row.students, row.reason) for row in rows if row.state != "finished"]
    if not left:
        return ""
    text = "## Not finished\n\n" + markdown(("trial", "state", "students judged", "why"), left)
    if any(row.state in ("failed", "cut off", "waiting") for row in rows):
        text += f"\n\nGo on with `{command}`: what is finished is not run again."
    return text


def _reuse(rows: Sequence[Row]) -> str:
    reused = sum(row.reused or 0 for row in rows)
    if not reused:
        return ""
    judged = sum(row.students for row in rows)
    return f"Of {judged} students judged, {reused} judgements came from another trial of the same teacher and data."
