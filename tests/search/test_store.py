"""What goes into the store comes out, batch by batch, and a damaged store says so."""

from __future__ import annotations

import resource
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from pathlib import Path

import pytest

from n2n.evaluate.base import Evaluation, Status
from n2n.search.errors import ArtefactError, WriteError
from n2n.search.store import VERSION, Record, Store, first_judgements, read_records

FINE = Evaluation(
    "f1", '{"a":1}', Status.OK, "", 0.75, 0.5, 1234, 5678, 0.25, 2**32 - 1, "kd", 1.5, 0.25, "cpu (x)", 0.5
)
FAILED = replace(
    FINE, fingerprint="f2", status=Status.FAILED, reason="diverged", accuracy=None, loss=None, latency_ms=None
)
EARLIER_COLUMNS = (
    "stage TEXT NOT NULL, iteration INTEGER NOT NULL, reward REAL NOT NULL, cached INTEGER NOT NULL, "
    "fingerprint TEXT NOT NULL, architecture TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL, accuracy REAL, "
    "loss REAL, parameters INTEGER, macs INTEGER, seconds REAL NOT NULL, seed TEXT NOT NULL, fidelity TEXT NOT NULL, "
    "latency_ms REAL"
)


def test_records_come_back_in_order_and_whole(tmp_path: Path) -> None:
    first = [Record("removal", 0, 0.5, False, FINE), Record("removal", 0, -1.0, False, FAILED)]
    second = [Record("shrinkage", 3, 0.5, True, FINE)]
    with Store(tmp_path / "evaluations.sqlite") as store:
        store.add(first)
        store.add(second)
    assert read_records(tmp_path) == first + second
    assert first_judgements(first + second) == first


def test_a_batch_is_on_disk_before_the_store_is_closed(tmp_path: Path) -> None:
    with Store(tmp_path / "evaluations.sqlite") as store:
        store.add([Record("removal", 0, 0.5, False, FINE)])
        with closing(sqlite3.connect(tmp_path / "evaluations.sqlite")) as other:
            assert other.execute("SELECT accuracy, parameters FROM evaluations").fetchall() == [(0.75, 1234)]


def test_a_bad_record_leaves_its_whole_batch_out(tmp_path: Path) -> None:
    with Store(tmp_path / "evaluations.sqlite") as store:
        store.add([Record("removal", 0, 0.5, False, FINE)])
        incomplete = replace(FINE, fidelity=None)  # type: ignore[arg-type]  # the mistake that is tested
        with pytest.raises(sqlite3.IntegrityError):
            store.add([Record("removal", 1, 0.5, False, FINE), Record("removal", 1, 0.5, False, incomplete)])
        assert len(store.records()) == 1


def test_a_damaged_or_missing_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"evaluations.sqlite is missing"):
        read_records(tmp_path)
    (tmp_path / "evaluations.sqlite").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(ArtefactError, match="not a store of evaluations"):
        read_records(tmp_path)


def test_a_full_disk_is_not_taken_for_a_bad_store(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))  # files cannot grow beyond: as on a full disk
    try:
        with pytest.raises(WriteError, match=r"cannot open or write .*evaluations.sqlite"):
            Store(tmp_path / "evaluations.sqlite")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with Store(tmp_path / "evaluations.sqlite") as store:
        store.add([Record("removal", 0, 0.5, False, FINE)])
    assert len(read_records(tmp_path)) == 1


def test_a_store_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"cannot open or write .*nowhere.*permissions"):
        Store(tmp_path / "nowhere" / "evaluations.sqlite")


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "evaluations.sqlite")) as other, other:
        other.execute("CREATE TABLE evaluations (id INTEGER PRIMARY KEY, stage TEXT)")
    with pytest.raises(ArtefactError, match="another version"):
        read_records(tmp_path)


def earlier_store(path: Path) -> None:
    """One with a single row, as the first N2N wrote it."""
    with closing(sqlite3.connect(path)) as other, other:
        other.execute(f"CREATE TABLE evaluations (id INTEGER PRIMARY KEY, {EARLIER_COLUMNS})")
        row = ("removal", 0, 0.5, 0, "f1", "{}", "ok", "", 0.75, 0.5, 12, 34, 0.25, "1", "kd", 1.5)
        other.execute(f"INSERT INTO evaluations VALUES (1, {', '.join('?' * len(row))})", row)


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as other:
        return int(other.execute("PRAGMA user_version").fetchone()[0])


def test_a_store_of_before_there_were_versions_is_read_as_it_is_and_brought_to_this_one_when_written(
    tmp_path: Path,
) -> None:
    path = tmp_path / "evaluations.sqlite"
    earlier_store(path)
    before = path.read_bytes()
    (read,) = read_records(tmp_path)
    assert (read.evaluation.latency_ms, read.evaluation.latency_iqr_ms, read.evaluation.size_mb) == (1.5, None, None)
    assert (read.evaluation.rung, read.evaluation.estimate) == ("", None)
    assert path.read_bytes() == before
    assert version(path) == 0
    with Store(path) as store:
        store.add([Record("removal", 1, 0.5, False, FINE)])
        assert store.records() == [read, Record("removal", 1, 0.5, False, FINE)]
    assert version(path) == VERSION == 1


def test_a_store_of_a_later_version_is_refused_with_both_versions_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.sqlite"
    Store(path).close()
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("PRAGMA user_version = 7")
    before = path.read_bytes()
    for use in (lambda: Store(path), lambda: read_records(tmp_path)):
        with pytest.raises(ArtefactError, match=r"store of version 7, .* up to version 1; use the N2N that wrote it"):
            use()
    assert path.read_bytes() == before


def test_an_open_store_is_read_by_others_and_a_closed_one_is_a_single_file(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.sqlite"
    with Store(path) as store:
        store.add([Record("removal", 0, 0.5, False, FINE)])
        with closing(sqlite3.connect(path)) as other:
            assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            other.execute("BEGIN")
            assert other.execute("SELECT count(*) FROM evaluations").fetchone() == (1,)
            store.add([Record("removal", 1, 0.5, False, FAILED)])  # a reader does not keep the search waiting
            assert other.execute("SELECT count(*) FROM evaluations").fetchone() == (1,), "it sees what it began with"
        assert len(read_records(tmp_path)) == 2
    assert [one.name for one in tmp_path.iterdir()] == ["evaluations.sqlite"]
    assert len(read_records(tmp_path)) == 2


def test_a_store_that_somebody_reads_as_it_is_closed_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.sqlite"
    with closing(sqlite3.connect(path)) as other, Store(path) as store:
        store.add([Record("removal", 0, 0.5, False, FINE)])
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM evaluations").fetchone()
    assert len(read_records(tmp_path)) == 1


@pytest.mark.parametrize("killed", [False, True])
def test_a_read_only_folder_is_read(
    open_folder: Path, read_only: Callable[[Path], AbstractContextManager[None]], killed: bool
) -> None:
    """Of a run that ended, and of one that was killed, whose last batches are in the log beside the file."""
    made, there = open_folder / "made", open_folder / "there"
    made.mkdir()
    with Store(made / "evaluations.sqlite") as store:
        store.add([Record("removal", 0, 0.5, False, FINE)])
        if killed:
            shutil.copytree(made, there)
            assert (there / "evaluations.sqlite-wal").stat().st_size > 0
    if not killed:
        shutil.copytree(made, there)
    with read_only(there):
        assert [one.evaluation for one in read_records(there)] == [FINE]
        with pytest.raises(WriteError, match=r"cannot open or write .*evaluations.sqlite"):
            Store(there / "evaluations.sqlite")


def test_a_store_in_a_log_that_nobody_wrote_to_is_read_from_a_read_only_folder(
    open_folder: Path, read_only: Callable[[Path], AbstractContextManager[None]]
) -> None:
    """What is left where a store was closed while somebody read it: the log is in use by its header, and not there."""
    path = open_folder / "evaluations.sqlite"
    with Store(path) as store:
        store.add([Record("removal", 0, 0.5, False, FINE)])
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA journal_mode = WAL")
    assert not path.with_name("evaluations.sqlite-wal").exists()
    with read_only(open_folder):
        assert len(read_records(open_folder)) == 1


@pytest.mark.parametrize("column", ["status", "seed"])
def test_a_value_that_no_run_wrote_is_told(tmp_path: Path, column: str) -> None:
    with Store(tmp_path / "evaluations.sqlite") as store:
        store.add([Record("removal", 0, 0.5, False, FINE)])
    with closing(sqlite3.connect(tmp_path / "evaluations.sqlite")) as other, other:
        other.execute(f"UPDATE evaluations SET {column} = 'nonsense'")
    with pytest.raises(ArtefactError, match=r"is damaged .*nonsense.*restore it or run again"):
        read_records(tmp_path)


LATER_COLUMNS = (
    ("latency_iqr_ms REAL", 0.25), ("latency_device TEXT", "cpu (x)"), ("size_mb REAL", 0.5), ("agreement REAL", -0.5),
    ("score REAL", 12.5), ("rung TEXT NOT NULL DEFAULT ''", "refit:0"), ("estimate REAL", 0.625),
)  # fmt: skip
"""What later versions added, one after the other, each with a value."""


@pytest.mark.parametrize("added", range(len(LATER_COLUMNS) + 1))
def test_the_store_of_every_earlier_version_opens(tmp_path: Path, added: int) -> None:
    had = LATER_COLUMNS[:added]
    columns = ", ".join((EARLIER_COLUMNS, *(kind for kind, _ in had)))
    row = ("removal", 0, 0.5, 0, "f1", "{}", "ok", "", 0.75, 0.5, 12, 34, 0.25, "1", "kd", 1.5, *(v for _, v in had))
    with closing(sqlite3.connect(tmp_path / "evaluations.sqlite")) as other, other:
        other.execute(f"CREATE TABLE evaluations (id INTEGER PRIMARY KEY, {columns})")
        other.execute(f"INSERT INTO evaluations VALUES (1, {', '.join('?' * len(row))})", row)
    (read,) = read_records(tmp_path)
    for kind, value in LATER_COLUMNS:
        name = kind.split()[0]
        missing = "" if name == "rung" else None
        assert getattr(read.evaluation, name) == (value if (kind, value) in had else missing), name
    climbed = replace(FINE, agreement=0.5, score=None, rung="refit:20", estimate=0.75)
    scored = replace(FINE, accuracy=None, loss=None, score=-4.5, rung="score:naswot", estimate=0.5)
    with Store(tmp_path / "evaluations.sqlite") as store:
        store.add([Record("removal", 1, 0.5, False, climbed), Record("removal", 1, 0.5, False, scored)])
    assert [one.evaluation for one in read_records(tmp_path)] == [read.evaluation, climbed, scored]
