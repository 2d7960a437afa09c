"""Means over seeds: the interval by hand, and what the tables say."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from n2n.search.files import write_json
from n2n.sweep.plot import colour_key, plot_trials, points
from n2n.sweep.rows import Row
from n2n.sweep.table import Interval, grouped, t_interval, write_tables
from n2n.sweep.trials import Trial


def test_an_interval_by_hand() -> None:
    """Mean 0.92, s = 0.02, t(0.975; 2) = 4.303 from a printed table: half a width of 0.0497."""
    found = t_interval([0.90, 0.92, 0.94])
    assert found.mean == pytest.approx(0.92)
    half = 4.303 * 0.02 / math.sqrt(3)
    assert found.low == pytest.approx(0.92 - half, abs=1e-5)
    assert found.high == pytest.approx(0.92 + half, abs=1e-5)
    assert found.n == 3


def test_two_numbers_by_the_cauchy_quantile() -> None:
    """With one degree of freedom t is Cauchy: its 97.5% quantile is tan(0.475 pi); s / sqrt(2) is half the gap."""
    found = t_interval([1.0, 3.0])
    assert found.high == pytest.approx(2 + math.tan(0.475 * math.pi))


def test_one_number_has_no_interval_and_none_is_an_error() -> None:
    assert t_interval([0.5]) == Interval(0.5, None, None, 1)
    with pytest.raises(ValueError, match="one value at least"):
        t_interval([])


def row(agent: str, seed: int, accuracy: float | None, *, met: bool = True) -> Row:
    varied = {"seed": seed, "agent": agent}
    trial = Trial(f"{agent}-{seed}", varied, varied)
    if accuracy is None:
        return Row(trial, "failed", "no such file", students=1)
    return Row(trial, "finished", "", students=4, reused=2, seconds=2.0, best_reward=0.5, test_accuracy=accuracy,
               parameters=1000, macs=10, meets_budget=met, teacher="mlp", teacher_test_accuracy=0.95,
               teacher_parameters=4000)  # fmt: skip


ROWS = [row("a", 0, 0.90), row("a", 1, 0.92), row("a", 2, 0.94, met=False), row("b", 0, 0.8), row("b", 1, None)]


def test_groups_are_the_keys_without_the_seed() -> None:
    a, b = grouped(ROWS)
    assert (a.varied, a.trials, a.finished, a.met) == ({"agent": "a"}, 3, 3, 2)
    assert a.means["test_accuracy"] == t_interval([0.90, 0.92, 0.94])
    assert (b.varied, b.trials, b.finished, b.met) == ({"agent": "b"}, 2, 1, 1)
    assert b.means["test_accuracy"] == Interval(0.8, None, None, 1)


def test_the_tables(tmp_path: Path) -> None:
    write_tables(tmp_path, ROWS, "n2n sweep --resume here")
    with (tmp_path / "trials.csv").open() as file:
        trials = list(csv.DictReader(file))
    assert [(one["trial"], one["seed"], one["agent"], one["state"]) for one in trials][3:] == [
        ("b-0", "0", "b", "finished"),
        ("b-1", "1", "b", "failed"),
    ]
    assert (trials[4]["why_not_finished"], trials[4]["test_accuracy"], trials[4]["students"]) == (
        "no such file",
        "",
        "1",
    )
    with (tmp_path / "summary.csv").open() as file:
        summary = list(csv.DictReader(file))
    assert (summary[0]["agent"], summary[0]["finished"], summary[0]["met_budget"]) == ("a", "3", "2")
    assert float(summary[0]["test_accuracy_low"]) == pytest.approx(0.92 - 4.303 * 0.02 / math.sqrt(3), abs=1e-5)
    assert (float(summary[1]["test_accuracy"]), summary[1]["test_accuracy_low"]) == (0.8, "")
    page = (tmp_path / "summary.md").read_text()
    assert "5 trials: 4 finished, 1 failed." in page
    assert "| a | 3 of 3 | 92.00% (87.03% to 96.97%) |" in page
    assert "| b | 1 of 2 | 80.00% |" in page
    assert "1 of 2 rows rest on one finished seed: no interval" in page
    assert "| b-1 | failed | 1 | no such file |" in page
    assert "n2n sweep --resume here" in page
    assert "Of 17 students judged, 8 judgements came from another trial" in page


def test_the_picture_takes_all_finished_students(tmp_path: Path) -> None:
    for one in ROWS:
        figures = [{"figures": {"parameters": 10 + at, "test_accuracy": 0.5}} for at in range(2)]
        write_json(tmp_path / "trials" / one.trial.name / "result.json", {"students": figures})
    assert colour_key(ROWS) == "agent"
    found = points(ROWS, tmp_path / "trials")
    assert {label: len(of) for label, of in found.items()} == {"agent a": 6, "agent b": 2}
    plot_trials(tmp_path / "front.png", ROWS, tmp_path / "trials")
    plot_trials(tmp_path / "empty.png", ROWS[4:], tmp_path / "trials")  # nothing finished
    assert (tmp_path / "front.png").read_bytes()[:4] == (tmp_path / "empty.png").read_bytes()[:4] == b"\x89PNG"
