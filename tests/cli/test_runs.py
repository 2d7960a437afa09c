"""`n2n runs`, `n2n query` and `n2n doctor`: what they print of real runs, of damaged ones and of none."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from n2n.search.lock import hold
from n2n.search.store import read_records

Run = Callable[..., Result]
Said = Callable[[Result], dict[str, Any]]
ReadOnly = Callable[[Path], AbstractContextManager[None]]


@pytest.fixture
def shelf(run: Path, teacher: Path, tmp_path: Path) -> Path:
    """A folder of runs in every state, beside things that are none."""
    shelf = tmp_path / "shelf"
    for at, name in enumerate(
        ("good", "deep/er/cut", "killed", "working", "bad-json", "bad-store", "bad-end", "no-figures")
    ):
        shutil.copytree(run, shelf / name)
        os.utime(shelf / name / "config.json", (1_700_000_000 + at, 1_700_000_000 + at))
    for name in ("killed", "working", "bad-store"):
        (shelf / name / "result.json").unlink()
    result = json.loads((shelf / "deep/er/cut/result.json").read_text())
    (shelf / "deep/er/cut/result.json").write_text(json.dumps({**result, "stopped": "interrupted", "students": []}))
    (shelf / "no-figures/result.json").write_text(json.dumps({**result, "teacher": "gone"}))
    (shelf / "bad-json/config.json").write_text('{"agent": ')
    for name in ("bad-store", "bad-end"):
        (shelf / name / "evaluations.sqlite").write_bytes(b"scrambled" * 100)
    shutil.copytree(teacher, shelf / "teacher")
    (shelf / "model").mkdir()
    (shelf / "model/config.json").write_text("{}")  # of somebody else
    return shelf


def test_every_run_is_listed_with_its_state(n2n: Run, said: Said, run: Path, shelf: Path) -> None:
    (shelf / "deep/er/states.json").write_text("{}")  # of a sweep, which holds its folder as a run does
    with hold(shelf / "working"), hold(shelf / "deep/er"):
        listed = n2n("runs", shelf, "--json")
    assert listed.exit_code == 0
    runs = {one["name"]: one for one in said(listed)["runs"]}
    assert {name: one["state"] for name, one in runs.items()} == {
        "good": "finished",
        "deep/er/cut": "interrupted",
        "killed": "stopped",
        "working": "running",
        "bad-json": "broken",
        "bad-store": "broken",
        "bad-end": "broken",
        "no-figures": "broken",
    }
    good, result = runs["good"], json.loads((run / "result.json").read_text())
    student = result["students"][0]["figures"]
    assert (good["teacher"], good["data"], good["agent"], good["budget"]) == ("mlp", "digits", "reinforce", {})
    assert good["judged"] == result["evaluations"] == runs["killed"]["judged"]
    assert good["best"]["test_accuracy"] == student["test_accuracy"]
    assert good["best"]["parameters"] == student["parameters"]
    assert good["best"]["compression"] == pytest.approx(3466 / student["parameters"], abs=0.005)
    assert good["when"] == "2023-11-14T22:13:20+00:00"
    assert good["seconds"] == pytest.approx(result["seconds"] + result["finish_seconds"], abs=0.06)
    assert runs["deep/er/cut"]["best"] is None
    assert "config.json is not JSON" in runs["bad-json"]["problem"]
    for name in ("bad-store", "bad-end"):
        assert "evaluations.sqlite is not a store" in runs[name]["problem"]
    assert "result.json does not hold what a run writes" in runs["no-figures"]["problem"]


def test_the_list_says_what_to_do_about_the_states(n2n: Run, shelf: Path) -> None:
    result = n2n("runs", shelf)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split()[:2] == ["run", "state"]
    assert next(line for line in lines if line.startswith("good")).split()[1:5] == [
        "finished",
        "mlp",
        "digits",
        "reinforce",
    ]
    assert "`n2n search --resume RUN` goes on with it" in result.stdout
    assert result.stdout.count("\nbroken: ") == 4


def test_a_run_itself_and_a_folder_without_any_can_be_named(
    n2n: Run, said: Said, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [one["name"] for one in said(n2n("runs", run, "--json"))["runs"]] == ["."]
    empty = n2n("runs", tmp_path)
    assert (empty.exit_code, empty.stdout[:12]) == (0, "no run under")
    monkeypatch.chdir(tmp_path)
    missing = n2n("runs")
    assert missing.exit_code == 2
    assert missing.stderr.startswith("error: runs is no folder")


def test_a_held_folder_is_not_replaced(n2n: Run, teacher: Path, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(run, out)
    before = {one: one.read_bytes() for one in out.rglob("*") if one.is_file()}
    with hold(out):
        for command in (("search", "--teacher", teacher), ("train-teacher", "mlp")):
            refused = n2n(*command, "--out", out, "--force")
            assert refused.exit_code == 2
            assert f"is in use: process {os.getpid()} on " in refused.stderr
    assert {one: one.read_bytes() for one in out.rglob("*") if one.is_file()} == before


def test_a_query_prints_a_table_csv_or_json(n2n: Run, said: Said, run: Path) -> None:
    sql = (
        "SELECT stage, count(*) AS n, max(reward) AS best, NULL AS none FROM evaluations GROUP BY stage ORDER BY stage"
    )
    stages: dict[str, list[float]] = {}
    for one in read_records(run):
        stages.setdefault(one.stage, []).append(one.reward)
    expected = [[name, len(rewards), max(rewards), None] for name, rewards in sorted(stages.items())]
    record = said(n2n("query", run, sql, "--json"))
    assert (record["columns"], record["rows"]) == (["stage", "n", "best", "none"], expected)
    rows = list(csv.reader(n2n("query", run, sql, "--csv").stdout.splitlines()))
    assert rows == [["stage", "n", "best", "none"], *([a, str(b), str(c), ""] for a, b, c, _ in expected)]
    table = n2n("query", run, sql).stdout.splitlines()
    assert table[0].split() == ["stage", "n", "best", "none"]
    assert [line.split() for line in table[2:]] == [[a, str(b), f"{c:.6g}"] for a, b, c, _ in expected]
    assert n2n("query", run, "SELECT 'two\nlines' AS text, x'0aff' AS bytes").stdout.splitlines()[2].split() == [
        "two",
        "lines",
        "0aff",
    ]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT acuracy FROM evaluations", "no such column: acuracy. The file has: evaluations (id, stage, iteration"),
        ("SELECT * FROM evals", "no such table: evals. The file has: evaluations (id"),
        ("SELEC 1", 'near "SELEC": syntax error'),
        ("SELECT 1; SELECT 2", "one statement at a time"),
        ("SELECT ?", "bindings"),
        (" -- nothing", "there is no statement"),
        ("DELETE FROM evaluations", "only statements that read"),
        ("UPDATE evaluations SET reward = 1", "only statements that read"),
        ("DROP TABLE evaluations", "only statements that read"),
        ("PRAGMA user_version = 9", "only statements that read"),
        ("PRAGMA journal_mode = DELETE", "only statements that read"),
        ("CREATE TEMP TABLE t (x)", "only statements that read"),
        ("ATTACH 'made.sqlite' AS made", "only statements that read"),
        ("VACUUM INTO 'made.sqlite'", "only statements that read"),
    ],
)
def test_a_statement_that_does_not_work_or_would_write_is_told_in_a_line(
    n2n: Run, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {one: one.read_bytes() for one in run.iterdir() if one.is_file()}
    result = n2n("query", run, sql)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert expected in result.stderr
    assert result.stderr.count("\n") == 1
    assert {one: one.read_bytes() for one in run.iterdir() if one.is_file()} == before
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_run_has_no_judgements(n2n: Run, teacher: Path, run: Path) -> None:
    result = n2n("query", teacher, "SELECT 1")
    assert result.exit_code == 2
    assert "evaluations.sqlite is missing; is" in result.stderr
    both = n2n("query", run, "SELECT 1", "--csv", "--json")
    assert both.exit_code == 2
    assert "exclude one another" in both.stderr


def test_a_read_only_run_is_listed_and_asked_and_its_report_is_refused_in_a_line(
    n2n: Run, said: Said, run: Path, open_folder: Path, read_only: ReadOnly
) -> None:
    shutil.copytree(run, open_folder / "run")
    with read_only(open_folder):
        (one,) = said(n2n("runs", open_folder, "--json"))["runs"]
        asked = n2n("query", open_folder / "run", "SELECT count(*) AS n FROM evaluations")
        report = n2n("report", open_folder / "run")
    assert one["state"] == "finished"
    assert asked.exit_code == 0
    assert asked.stdout.splitlines()[2] == str(len(read_records(run)))
    assert report.exit_code == 2
    assert report.stderr.startswith("error: cannot write ")
    assert "Permission denied" in report.stderr


@pytest.mark.parametrize("name", ["evaluations.sqlite", "config.json", "."])
def test_a_file_or_folder_that_may_not_be_read_is_named(
    n2n: Run, said: Said, run: Path, open_folder: Path, read_only: ReadOnly, name: str
) -> None:
    there = open_folder / "run"
    shutil.copytree(run, there)
    (there / "result.json").unlink()
    with read_only(open_folder):
        if os.geteuid() == 65534:
            os.seteuid(0)
        (there / name).chmod(0)
        if os.getuid() == 0:
            os.seteuid(65534)
        (one,) = said(n2n("runs", open_folder, "--json"))["runs"]
        commands = {"evaluations.sqlite": ("query", there, "SELECT 1"), "config.json": ("report", there)}
        refused = [n2n(*commands[name])] if name in commands else [n2n(*each) for each in commands.values()]
    assert one["state"] == "broken"
    assert "cannot be read" in one["problem"]
    for result in refused:
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        assert str(there) in result.stderr


def test_a_store_of_a_later_version_is_refused_by_all_three(n2n: Run, said: Said, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    with closing(sqlite3.connect(tmp_path / "run/evaluations.sqlite")) as other, other:
        other.execute("PRAGMA user_version = 7")
    for command in (("query", tmp_path / "run", "SELECT 1"), ("report", tmp_path / "run")):
        result = n2n(*command)
        assert result.exit_code == 2
        assert "store of version 7, and this N2N reads those up to version 1" in result.stderr
    (tmp_path / "run/result.json").unlink()
    (one,) = said(n2n("runs", tmp_path, "--json"))["runs"]
    assert (one["state"], "store of version 7" in one["problem"]) == ("broken", True)


def test_the_doctor_tells_what_is_here_and_its_exit_code_whether_that_is_enough(
    n2n: Run, said: Said, tmp_path: Path
) -> None:
    found = n2n("doctor", "--out", tmp_path, "--json")
    record = said(found)
    assert found.exit_code == (0 if record["healthy"] else 2)
    assert {"python", "torch", "ray", "devices", "disk", "memory"} <= {one["what"] for one in record["checks"]}
    (tmp_path / "file").write_text("")
    occupied = n2n("doctor", "--out", tmp_path / "file")
    assert occupied.exit_code == 2
    assert "PROBLEM  disk" in occupied.stdout
    assert "there is a file of this name, where a folder is expected: choose another place for --out" in occupied.stdout
    assert "a search does not work here yet: " in occupied.stdout
    both = n2n("doctor", "--ray", "--address", "auto")
    assert both.exit_code == 2
    assert "say one of them" in both.stderr
