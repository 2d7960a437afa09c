"""`n2n search --space` and what reads its run again: runs, query, report, evaluate, export, distill, policy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from n2n.search.files import read_json, write_json

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def folder(n2n: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short search of a space with one trained finalist."""
    out = tmp_path_factory.mktemp("spaces") / "run"
    asked = ("--evaluate", "params", "--agent", "reinforce", "--evaluations", 4, "--max-params", "200k")
    result = n2n("search", "--space", "cifar_resnet", *asked, "--final-epochs", 0.1, "--finalists", 1, "--out", out)
    assert result.exit_code == 0, result.stderr
    assert "code" in result.stdout
    assert f"n2n evaluate {out / 'students/1'}\n" in result.stdout
    return out


def test_the_run_is_one_like_every_other(n2n: Run, said: Callable[[Result], dict[str, Any]], folder: Path) -> None:
    (run,) = said(n2n("runs", folder, "--json"))["runs"]
    assert (run["state"], run["teacher"], run["budget"]) == ("finished", "cifar_resnet", {"max_params": "200k"})
    assert run["best"]["compression"] is None
    assert "cifar_resnet" in n2n("runs", folder).stdout
    rows = said(n2n("query", folder, "select score, parameters from evaluations", "--json"))["rows"]
    assert rows
    assert all(score == parameters <= 200_000 for score, parameters in rows)
    assert n2n("report", folder).exit_code == 0
    assert "cifar_resnet" in n2n("policy", "show", folder).stdout


def test_its_student_needs_nothing_else(n2n: Run, said: Callable[[Result], dict[str, Any]], folder: Path) -> None:
    student = folder / "students" / "1"
    measured = said(n2n("evaluate", student, "--json"))
    figures = read_json(student / "card.json")["figures"]
    for name in ("validation_accuracy", "test_accuracy", "parameters", "macs"):
        assert measured[name] == figures[name]
    assert n2n("export", student, "--format", "python").exit_code == 0


def test_it_is_distilled_further_from_any_teacher(
    n2n: Run, said: Callable[[Result], dict[str, Any]], folder: Path, teacher: Path, tmp_path: Path
) -> None:
    student, out = folder / "students" / "1", tmp_path / "further"
    told = n2n("distill", student, "--teacher", teacher, "--epochs", 0.1, "--out", out)
    assert told.exit_code == 0, told.stderr
    assert read_json(out / "card.json")["space"] == read_json(student / "card.json")["space"]
    before, after = (said(n2n("evaluate", one, "--json")) for one in (student, out))
    assert after["parameters"] == before["parameters"]


def test_it_is_gone_on_with_by_the_command(n2n: Run, folder: Path, tmp_path: Path) -> None:
    again = n2n("search", "--resume", folder)
    assert again.exit_code == 2
    assert "came to its end" in again.stderr
    before = read_json(folder / "result.json")
    write_json(folder / "result.json", {**before, "stopped": "interrupted"})
    assert n2n("search", "--resume", folder).exit_code == 0
    assert read_json(folder / "result.json")["best"] == before["best"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--space", "nas_bench", "--evaluate", "params"), "unknown space 'nas_bench' (did you mean 'nas_bench_201'?)"),
        (("--space", "vit"), "--space needs --evaluate SCORE"),
        (("--space", "vit", "--evaluate", "params", "--factor", "0.5"), "--space with --factors"),
        (("--space", "vit", "--evaluate", "params", "--threads", "auto"), "--threads auto"),
        (("--space", "vit", "--evaluate", "params", "--max-params", "1k"), "vit: no student has at most 1,000 param"),
        (("--space", "vit", "--evaluate", "params", "--network-arg", "image_size=32"), "images of digits have 8"),
        (("--against", "1-1-1"), "--against goes with --space"),
        (("--final-epochs", "0"), "--final-epochs 0 goes with --space"),
    ],
)
def test_what_cannot_be_is_refused(n2n: Run, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    result = n2n("search", *arguments, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert words in result.stderr
    assert not (tmp_path / "run").exists()
