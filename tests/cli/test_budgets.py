"""Budgets on the command line: met, refused with what can be reached, or noted where they say little."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from typer.testing import Result

Run = Callable[..., Result]
Said = Callable[[Result], dict[str, Any]]


def test_several_budgets_at_once_are_met_by_construction(n2n: Run, said: Said, teacher: Path, tmp_path: Path) -> None:
    limits = ("--evaluations", 2, "--rollouts", 1, "--steps", 1, "--final-epochs", 0.1, "--finalists", 1)
    budgets = ("--max-params", "60%", "--max-macs", "1500", "--max-size-mb", "0.006", "--max-latency-ms", 1000)
    record = said(n2n("search", "--teacher", teacher, *budgets, *limits, "--out", tmp_path / "r", "--json"))
    assert record["meets_budget"] is True
    found, whole = record["students"][0]["figures"], record["teacher"]
    assert found["parameters"] <= 0.6 * whole["parameters"]
    assert found["macs"] <= 1500
    assert found["size_mb"] <= 0.006
    assert found["device"].startswith("cpu")


def test_an_impossible_budget_is_refused_with_the_feasible_range(n2n: Run, teacher: Path, tmp_path: Path) -> None:
    result = n2n("search", "--teacher", teacher, "--max-params", 3, "--out", tmp_path / "r")
    assert result.exit_code == 2
    assert "3,466" in result.stderr
    assert not (tmp_path / "r").exists()
    both = n2n("search", "--teacher", teacher, "--max-params", 3, "--max-macs", 2, "--out", tmp_path / "r")
    assert "max_params=3 is impossible" in both.stderr
    assert "max_macs=2 is impossible" in both.stderr


def test_a_share_of_more_than_all_is_refused(n2n: Run, teacher: Path, tmp_path: Path) -> None:
    budgets = ("--max-params", "120%", "--max-size-mb", "101%")
    result = n2n("search", "--teacher", teacher, *budgets, "--out", tmp_path / "r")
    assert result.exit_code == 2
    assert "max_params: budget '120%' is more than the teacher has" in result.stderr
    assert "max_size_mb: budget '101%' is more than the teacher has" in result.stderr
    assert not (tmp_path / "r").exists()


def test_what_a_student_and_its_budget_are_worth_is_noted_at_the_end(
    n2n: Run, said: Said, teacher: Path, tmp_path: Path
) -> None:
    """One distillation step from scratch leaves a guess; factors of a tenth leave far less than the budget allows."""
    budgets = ("--max-params", "90%", "--max-macs", "3.5k")
    flags = (*budgets, "--no-removal", "--factor", 0.1, "--factor", 1, "--start", "fresh")
    limits = ("--evaluations", 1, "--rollouts", 1, "--steps", 1, "--final-epochs", 0.01)
    found = n2n("search", "--teacher", teacher, *flags, *limits, "--out", tmp_path / "r")
    assert found.exit_code == 0, found.stderr
    report = (tmp_path / "r" / "report.md").read_text()
    for note in ("max_macs=3,500 excludes nothing", "Student 1 is at chance level", "% of the budget ("):
        assert note in found.stdout
        assert note in report
    assert "removal stage" not in report, "advice to leave out what is left out"


def test_no_one_is_told_to_leave_out_a_stage_that_had_no_decision(n2n: Run, tmp_path: Path) -> None:
    """The first layer and the classifier stay, and what is between is ignored: removal is asked for and left out."""
    trained = n2n("train-teacher", "mlp", "--network-arg", "hidden=[16]", "--epochs", 4, "--out", tmp_path / "t")
    assert trained.exit_code == 0, trained.stderr
    flags = ("--max-params", "90%", "--factor", 0.1, "--factor", 1, "--evaluations", 2, "--rollouts", 1)
    limits = ("--steps", 1, "--final-epochs", 0.01, "--ignored-layer", 0, "--ignored-layer", 2)
    found = n2n("search", "--teacher", tmp_path / "t", "--agent", "reinforce", *flags, *limits, "--out", tmp_path / "r")
    assert "removal is left out" in found.stderr
    report = (tmp_path / "r" / "report.md").read_text()
    assert "% of the budget (" in report
    assert "leave the removal stage out" not in report
