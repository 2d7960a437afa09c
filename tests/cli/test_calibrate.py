"""`n2n calibrate` end to end on a tiny teacher, and the ladder that it leaves for `n2n search`."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

Run = Callable[..., Result]
Said = Callable[[Result], dict[str, Any]]
SMALL = ("--students", 10, "--rung", "score:params", "--rung", "refit:0", "--against", "inherited:1e", "--seeds", 1)
TINY = ("--evaluations", 4, "--rollouts", 2, "--final-epochs", 0.2, "--finalists", 1, "--threads", 1)


@pytest.fixture(scope="module")
def calibrated(n2n: Run, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("calibrations") / "one"
    return out, n2n("calibrate", "--teacher", teacher, "--out", out, *SMALL)


def test_the_table_is_printed(calibrated: tuple[Path, Result]) -> None:
    out, result = calibrated
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[1].split("  ")[0] == "rung"
    assert [line.split("  ")[0] for line in lines[3:8]] == [
        "parameter count", "MACs", "score:params", "refit:0", "refit:0"
    ]  # fmt: skip
    assert any(line.startswith("note: score:params ranks no better than the parameter count") for line in lines)
    assert any(line.startswith("recommended: ") and line.endswith("refit:0") for line in lines)
    assert f"picture: {out / 'ranking.png'}" in lines
    assert f"  n2n search --config {out / 'ladder.toml'} --teacher ... --max-params 20% --out ..." in lines


def test_json_is_one_object_and_the_same_command_goes_on(
    calibrated: tuple[Path, Result], n2n: Run, said: Said, teacher: Path
) -> None:
    out, _ = calibrated
    before = (out / "judgements.csv").read_bytes()
    result = n2n("calibrate", "--teacher", teacher, "--out", out, *SMALL, "--json")
    assert result.exit_code == 0, result.stderr
    found = said(result)
    assert (found["out"], found["truth"]) == (str(out), "inherited:1e")
    assert found["students"] >= 8
    assert {line["rung"] for line in found["lines"]} == {"parameter count", "MACs", "score:params", "refit:0"}
    assert (out / "judgements.csv").read_bytes() == before


def test_the_ladder_is_read_by_a_search(
    calibrated: tuple[Path, Result], n2n: Run, teacher: Path, tmp_path: Path
) -> None:
    out, _ = calibrated
    config = ("--config", out / "ladder.toml")
    result = n2n("search", "--teacher", teacher, "--out", tmp_path / "run", *config, *TINY)
    assert result.exit_code == 0, result.stderr
    ladder = json.loads((tmp_path / "run" / "config.json").read_text())["ladder"]
    assert ladder[-1] == "refit:0"
    with closing(sqlite3.connect(tmp_path / "run" / "evaluations.sqlite")) as store:
        rungs = {rung for (rung,) in store.execute("SELECT rung FROM evaluations WHERE status = 'ok'")}
    assert rungs <= {*ladder}


def test_the_ladder_of_another_teacher_is_refused(
    calibrated: tuple[Path, Result], n2n: Run, teacher: Path, tmp_path: Path
) -> None:
    ladder = (calibrated[0] / "ladder.toml").read_text()
    (known,) = re.findall(r'calibrated_for = "(\w+)"', ladder)
    (tmp_path / "other.toml").write_text(ladder.replace(known, "0123456789abcdef"))
    config = ("--config", tmp_path / "other.toml")
    result = n2n("search", "--teacher", teacher, "--out", tmp_path / "run", *config, *TINY)
    assert result.exit_code == 2
    assert f"calibrated for the teacher 0123456789abcdef, and this is {known}" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_ladder_from_flags(n2n: Run, teacher: Path, tmp_path: Path) -> None:
    flags = ("--rung", "score:params", "--rung", "refit:0", "--promote", 0.5, "--cache", tmp_path / "judged.sqlite")
    result = n2n("search", "--teacher", teacher, "--out", tmp_path / "run", *flags, *TINY)
    assert result.exit_code == 0, result.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["ladder"], config["promote"]) == (["score:params", "refit:0"], 0.5)
    assert config["cache"] == str(tmp_path / "judged.sqlite")
    assert (tmp_path / "judged.sqlite").stat().st_size > 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--rung", "refit:fast"), "rung 'refit:fast': expected START:STEPS"),
        (("--students", 3), "students=3: a panel needs 8 students or more"),
        (("--students", 0), "--students: Input should be greater than 0"),
        (("--seconds", 1e-6), "the panel is too small for an interval: 0 students were judged by"),
        (("--objective", "mse"), "unknown objective 'mse'"),
        (("--rung", "inherited:5:nst"), "no feature maps"),
        (("--teacher", "nowhere"), "nowhere"),
    ],
)
def test_bad_input_is_one_line(n2n: Run, teacher: Path, tmp_path: Path, flags: tuple[object, ...], words: str) -> None:
    given = () if "--teacher" in flags else ("--teacher", teacher)
    result = n2n("calibrate", *given, "--out", tmp_path / "out", *flags)
    assert result.exit_code == 2
    assert result.stdout == ""
    error = result.stderr.splitlines()[-1]
    assert error.startswith("error: ")
    assert words in error


def test_what_is_missing_is_named(n2n: Run, said: Said, teacher: Path, tmp_path: Path) -> None:
    result = n2n("calibrate", "--teacher", teacher)
    assert (result.exit_code, result.stderr) == (2, "error: --out FOLDER is required: where the judgements are kept\n")
    result = n2n("calibrate", "--out", tmp_path / "out", "--json")
    assert result.exit_code == 2
    assert "needs the teacher: --teacher FOLDER" in said(result)["error"]


def test_a_damaged_file_of_judgements_is_one_line(
    calibrated: tuple[Path, Result], n2n: Run, teacher: Path, tmp_path: Path
) -> None:
    out, _ = calibrated
    (tmp_path / "calibration.json").write_bytes((out / "calibration.json").read_bytes())
    (tmp_path / "judgements.csv").write_text((out / "judgements.csv").read_text().replace(",ok,", ",o,", 1))
    result = n2n("calibrate", "--teacher", teacher, "--out", tmp_path, *SMALL)
    assert result.exit_code == 2
    assert "judgements.csv, line 2 is damaged" in result.stderr.splitlines()[-1]
    (tmp_path / "file").write_text("")
    result = n2n("calibrate", "--teacher", teacher, "--out", tmp_path / "file", *SMALL)
    assert result.exit_code == 2
    assert "is a file; give a folder" in result.stderr
