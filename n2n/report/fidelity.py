"""How faithful rungs are, as tables, as a picture, and as a configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from n2n.evaluate.fidelity import Fidelity, best_measures
from n2n.evaluate.ladder import Correction
from n2n.evaluate.ranking import Ranking
from n2n.report.plots import figure_of
from n2n.report.tables import aligned, markdown

HEADER = ("rung", "ranks by", "Kendall tau (95%)", "better than size by", "seconds a student", "cheaper", "students")
CSV_COLUMNS = (
    "rung",
    "measure",
    "students",
    "tau",
    "low",
    "high",
    "gain",
    "gain_low",
    "gain_high",
    "seconds",
    "cheaper",
)


def _rows(lines: Sequence[Fidelity]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for one in lines:
        tau, gain = one.ranking, one.gain
        rows.append(
            (
                one.rung,
                one.measure or "itself",
                f"{tau.tau:.2f} ({tau.low:.2f} to {tau.high:.2f})",
                "" if gain is None else f"{gain.tau:+.2f} ({gain.low:+.2f} to {gain.high:+.2f})",
                f"{one.seconds:.2f}" if one.seconds else "",
                "" if one.cheaper is None else f"{one.cheaper:.0f}x",
                str(tau.students),
            )
        )
    return rows


def plain_table(lines: Sequence[Fidelity]) -> str:
    """For a terminal."""
    return aligned(HEADER, _rows(lines))


def markdown_table(lines: Sequence[Fidelity]) -> str:
    """For a report."""
    return markdown(HEADER, _rows(lines))


def csv_rows(lines: Sequence[Fidelity]) -> list[tuple[object, ...]]:
    """The rows under `CSV_COLUMNS`."""
    return [
        (
            one.rung,
            one.measure,
            one.ranking.students,
            *(round(value, 4) for value in (one.ranking.tau, one.ranking.low, one.ranking.high)),
            *(("", "", "") if one.gain is None else (round(v, 4) for v in (one.gain.tau, one.gain.low, one.gain.high))),
            round(one.seconds, 3),
            "" if one.cheaper is None else round(one.cheaper, 1),
        )
        for one in lines
    ]


def plot_fidelity(path: Path, lines: Sequence[Fidelity], ceiling: Ranking | None) -> None:
    """Kendall's tau with its interval against seconds a student; sizes and the ceiling of two seeds as lines."""

    def draw(axes: Any) -> None:
        for number, one in enumerate(line for line in lines if not line.measure):
            axes.axhline(one.ranking.tau, color=f"C{number}", linestyle=":", label=f"{one.rung} (no judgement)")
        if ceiling is not None:
            axes.axhline(ceiling.tau, color="k", linestyle="--", label="two seeds of the long distillation")
        for number, one in enumerate(best_measures(lines), start=2):
            tau = one.ranking
            # The bootstrap may leave the estimate itself just outside; bars of a negative length are refused.
            bars = [[max(0.0, tau.tau - tau.low)], [max(0.0, tau.high - tau.tau)]]
            axes.errorbar([max(one.seconds, 1e-3)], [tau.tau], bars, fmt="o",
                          color=f"C{number % 10}", capsize=3, label=f"{one.rung}, {one.measure}")  # fmt: skip
        axes.set_xscale("log")
        axes.set_xlabel("seconds a student")
        axes.set_ylabel("Kendall's tau against the long distillation")
        axes.legend(fontsize="x-small", loc="lower right")

    figure_of(path, draw)


def ladder_toml(
    ladder: Sequence[str], truth: str, students: int, expects: Mapping[str, Correction], made: Mapping[str, str]
) -> str:
    """A configuration for `n2n search --config`; `made` are the keys that the calibration was made with."""
    lines = [
        f"# recommended by a calibration on {students} students against {truth}",
        f"ladder = [{', '.join(quoted(name) for name in ladder)}]",
        *(f"{name} = {quoted(value)}" for name, value in made.items()),
    ]
    if all(name in expects and math.isfinite(expects[name].residual) for name in ladder):
        lines += ["", f"# accuracy after {truth} = intercept + slope * what the rung says, and what that line misses"]
        lines += ["[expects]"]
        for name in ladder:
            line = expects[name]
            lines.append(f"{quoted(name)} = [{line.intercept:.6g}, {line.slope:.6g}, {line.residual:.6g}]")
    return "\n".join(lines) + "\n"


def quoted(name: str) -> str:
    """A string as TOML writes it; names of rungs hold nothing that needs more."""
    return f'"{name}"'
