"""The scripts that set up a checkout: they work from anywhere, and say what went wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ("scripts/test", "scripts/quickstart", ".ci/run")


def checkout(tmp_path: Path) -> Path:
    """A folder with the scripts alone."""
    for name in (*SCRIPTS, "scripts/make-venv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def start(script: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a script from the root folder of the file system."""
    settings = {**os.environ, **environment}
    return subprocess.run([script], capture_output=True, text=True, check=False, cwd="/", env=settings)


def stand_in(root: Path, text: str) -> None:
    """Puts an executable where a virtual environment has its Python."""
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/usr/bin/env bash\n{text}\n")
    python.chmod(0o755)


@pytest.mark.parametrize("name", SCRIPTS)
def test_without_a_new_enough_python_a_script_says_so(tmp_path: Path, name: str) -> None:
    done = start(checkout(tmp_path) / name, PYTHON="/nowhere/python3")
    assert done.returncode == 1
    assert "no Python 3.11 or newer among: /nowhere/python3" in done.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_failed_installation_ends_the_script(tmp_path: Path, name: str) -> None:
    root = checkout(tmp_path)
    stand_in(root, "echo 'ERROR: no index' >&2; exit 1")
    done = start(root / name)
    assert done.returncode == 1
    assert "ERROR: no index" in done.stderr
    assert "check that a package index can be reached" in done.stderr


def test_the_pinned_versions_are_installed_with_the_extras_of_each_script(tmp_path: Path) -> None:
    root = checkout(tmp_path)
    stand_in(root, f'echo "$PWD $*" >> {root}/calls; exit 1')
    start(root / "scripts" / "test")
    start(root / "scripts" / "quickstart")
    pip = f"{root} -m pip install -q --disable-pip-version-check -c scripts/constraints.txt -e"
    assert (root / "calls").read_text().splitlines() == [f"{pip} .[dev]", f"{pip} ."]


def test_continuous_integration_runs_the_test_script_and_nothing_else() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert len(lines) == 2
    assert lines[1].endswith('scripts/test"')
    assert all(os.access(ROOT / name, os.X_OK) for name in SCRIPTS)
