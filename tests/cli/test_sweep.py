"""`n2n sweep` from the file to the tables, cut off and gone on with."""

from __future__ import annotations

import csv
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from n2n.evaluate.ray_cluster import ray_running
from n2n.search.files import read_json

SWEEP = """
[base]
teacher = "{teacher}"
evaluations = 6
rollouts = 2
steps = 2
final_epochs = 0.2
max_params = "60%"
[grid]
agent = ["random", "uniform"]
finalists = [1, 2]
[[trials]]
max_params = "0.01%"
"""
MEASURED = {"seconds", "reused", "latency_ms"}
"""Columns that differ from one run to the next."""


def rows(out: Path) -> dict[str, dict[str, str]]:
    with (out / "trials.csv").open() as file:
        return {one["trial"]: one for one in csv.DictReader(file)}


def lasting(out: Path) -> dict[str, dict[str, str]]:
    return {name: {key: value for key, value in one.items() if key not in MEASURED} for name, one in rows(out).items()}


def cut(run: Path, kept: int) -> int:
    """Leaves of a finished run what it had when it was killed after some judgements; how many OK ones are lost."""
    for name in ("result.json", "finished.json", "report.md"):
        (run / name).unlink()
    shutil.rmtree(run / "students")
    with closing(sqlite3.connect(run / "evaluations.sqlite")) as file, file:
        file.execute("DELETE FROM evaluations WHERE id > ?", (kept,))
    with closing(sqlite3.connect(run / "judged.sqlite")) as file, file:
        fine = "json_extract(evaluation, '$.status') = 'ok'"
        (lost,) = file.execute(f"SELECT count(*) FROM judgements WHERE rowid > ? AND {fine}", (kept,)).fetchone()
        file.execute("DELETE FROM judgements WHERE rowid > ?", (kept,))
    return int(lost)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*chance level")
def test_a_sweep_that_was_cut_off_ends_as_it_would_have(n2n: Any, said: Any, teacher: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "sweep.toml", tmp_path / "all"
    file.write_text(SWEEP.format(teacher=teacher))
    with ray_running(2):
        done = n2n("sweep", file, "--out", out, "--json")
        assert done.exit_code == 3, done.stderr
        found = {one["trial"]: one for one in said(done)["trials"]}
        assert [one["state"] for one in found.values()] == ["finished"] * 4 + ["failed"]
        hopeless = "agent-uniform_finalists-2_max_params-0.01"
        assert "is impossible: the least that a student" in found[hopeless]["why_not_finished"]
        whole = lasting(out)
        assert (len(whole), whole[hopeless]["students"]) == (5, "0")
        name = "agent-random_finalists-2_max_params-60"
        others = [one for one in found if one not in (name, hopeless)]
        written = {one: (out / "trials" / one / "result.json").stat().st_mtime_ns for one in others}
        lost = cut(out / "trials" / name, kept=2)
        assert lost >= 2

        again = n2n("sweep", "--resume", out, "--json")
        assert again.exit_code == 3, again.stderr

        file.write_text('storage = "nowhere://x"\n' + SWEEP.format(teacher=teacher))
        refused = n2n("sweep", file, "--out", tmp_path / "other")
        assert (refused.exit_code, "storage = nowhere://x: Ray cannot write there" in refused.stderr) == (2, True)
    assert lasting(out) == whole
    assert {one: (out / "trials" / one / "result.json").stat().st_mtime_ns for one in others} == written
    # What was lost is not judged again: the trials share a file, and it holds all that went well.
    assert read_json(out / "trials" / name / "result.json")["reused"] == lost == int(rows(out)[name]["reused"])
    assert read_json(out / "states.json")["attempts"] == 2
    assert [*(out / "ray" / "all-1").glob("agent-uniform_finalists-1*/events.out.tfevents.*")]
    assert (out / "front.png").stat().st_size > 1000
    page = (out / "summary.md").read_text()
    assert "5 trials: 4 finished, 1 failed." in page
    assert f"n2n sweep --resume {out}" in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "needs a TOML file, or --resume FOLDER"),
        (("nowhere.toml",), "cannot read the configuration file nowhere.toml"),
        (("--resume", "nowhere"), "nowhere has no sweep.toml"),
        (("--resume", "nowhere", "--out", "x"), "leave out --out"),
        (("a.toml", "--resume", "nowhere"), "leave out a.toml"),
    ],
)
def test_what_cannot_be_is_refused(n2n: Any, words: tuple[str, ...], message: str) -> None:
    done = n2n("sweep", *words)
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_sweep_needs_a_folder_of_its_own(n2n: Any, teacher: Path, tmp_path: Path) -> None:
    file = tmp_path / "sweep.toml"
    file.write_text(f'[base]\nteacher = "{teacher}"\n')
    assert "--out FOLDER is required" in n2n("sweep", file).stderr
    assert "is not empty" in n2n("sweep", file, "--out", tmp_path).stderr


INTERRUPTED = """
[base]
teacher = "{teacher}"
evaluations = 24
rollouts = 4
steps = 60
final_epochs = 0.2
finalists = 1
[grid]
seed = [0, 1, 2]
"""


def started(*words: object) -> subprocess.Popen[str]:
    """`n2n` in a process of its own."""
    code = "from n2n.cli.main import main; main()"
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


@pytest.mark.ray
@pytest.mark.slow
def test_an_interrupt_leaves_tables_and_says_how_to_go_on(teacher: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "sweep.toml", tmp_path / "all"
    file.write_text(INTERRUPTED.format(teacher=teacher))
    process = started("sweep", file, "--out", out)
    deadline = time.monotonic() + 120
    while not [*out.glob("trials/*/evaluations.sqlite")] and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 3, said
    assert f"go on with: n2n sweep --resume {out}" in said
    states = [one["state"] for one in rows(out).values()]
    assert set(states) <= {"cut off", "waiting", "finished"}
    assert "cut off" in states
    process = started("sweep", "--resume", out)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert [one["state"] for one in rows(out).values()] == ["finished"] * 3
