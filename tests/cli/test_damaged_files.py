"""A file of a run or of a teacher that was damaged is named, with what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Run = Callable[..., Result]


@pytest.mark.parametrize("damage", ["{}", "[]", '{"seed": 0, "ag'])
@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("config.json", ("report", "")),
        ("result.json", ("report", "")),
        ("environment.json", ("report", "")),
        ("policies/shrinkage/policy.json", ("policy", "show", "")),
        ("students/1/card.json", ("evaluate", "students/1")),
        ("students/1/card.json", ("export", "students/1")),
        ("students/1/architecture.json", ("evaluate", "students/1")),
        ("teacher/teacher.json", ("evaluate", "teacher")),
    ],
)
def test_a_damaged_file_of_a_run_is_named_with_what_to_do(
    n2n: Run, run: Path, teacher: Path, tmp_path: Path, name: str, command: tuple[str, ...], damage: str
) -> None:
    shutil.copytree(run, tmp_path / "r")
    shutil.copytree(teacher, tmp_path / "r" / "teacher")
    assert (tmp_path / "r" / name).is_file()
    (tmp_path / "r" / name).write_text(damage)
    result = n2n(*command[:-1], tmp_path / "r" / command[-1])
    assert result.exit_code == 2
    assert name in result.stderr
    assert "restore it or run again" in result.stderr
