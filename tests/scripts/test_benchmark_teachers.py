"""The teachers of the benchmarks are teacher folders like any other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from n2n.cli.main import app
from n2n.data import Augmentation, Origin
from n2n.search.teachers import load_teacher


@pytest.fixture
def script(load: Callable[[str], ModuleType]) -> ModuleType:
    return load("teachers")


def test_a_search_takes_the_folder(script: ModuleType, tmp_path: Path) -> None:
    arguments = (("classes", 10), ("inputs", 64), ("hidden", [16]))
    plan = script.Plan("mlp", arguments, "digits", Augmentation(pad=1), 3, 0.1, 0.2)
    written = script.train("tiny", plan, epochs=None, data_dir=None, out=tmp_path, device="cpu", seed=3)
    _, card = load_teacher(tmp_path / "tiny")
    assert card == written
    assert card.origin == Origin("digits", seed=0, validation=0.1)
    limits = ("--evaluations", "1", "--rollouts", "1", "--steps", "1", "--final-epochs", "0.1", "--no-removal")
    flags = ("--teacher", str(tmp_path / "tiny"), "--out", str(tmp_path / "run"), *limits)
    result = CliRunner().invoke(app, ["search", *flags])
    assert result.exit_code == 0, result.stderr
    assert "note:" not in result.stderr  # the split is that of the teacher
