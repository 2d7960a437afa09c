"""A tiny teacher folder that the tests of this folder share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from n2n.cli.main import app

Run = Callable[..., Result]


def invoke(*arguments: object) -> Result:
    """Runs `n2n` in this process; a bug of ours is raised, not swallowed."""
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="session")
def n2n() -> Run:
    return invoke


@pytest.fixture(scope="session")
def said() -> Callable[[Result], dict[str, Any]]:
    """The one JSON object on standard output."""

    def read(result: Result) -> dict[str, Any]:
        value = json.loads(result.stdout)
        assert isinstance(value, dict)
        return value

    return read


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow perceptron, trained on the digits for a moment: better than chance, and quick to search over."""
    out = tmp_path_factory.mktemp("teachers") / "mlp"
    sizes = ("--network-arg", "hidden=[32, 32]", "--batch-size", "32")
    result = invoke("train-teacher", "mlp", *sizes, "--epochs", "4", "--out", out)
    assert result.exit_code == 0, result.stderr
    return out


@pytest.fixture(scope="session")
def run(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short search over that teacher."""
    out = tmp_path_factory.mktemp("runs") / "first"
    limits = ("--evaluations", 6, "--rollouts", 2, "--steps", 2, "--final-epochs", 1, "--finalists", 1)
    result = invoke("search", "--teacher", teacher, "--agent", "reinforce", "--out", out, *limits)
    assert result.exit_code == 0, result.stderr
    return out
