"""What goes into the store comes out, batch by batch, and a damaged store says so."""

from __future__ import annotations

import resource
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from n2n.evaluate.base import Evaluation, Status
from n2n.search.errors import ArtefactError, WriteError
from n2n.search.store import Record, Store, first_judgements, read_records

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


def test_a_store_of_the_first_version_is_still_read(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "evaluations.sqlite")) as other, other:
        other.execute(f"CREATE TABLE evaluations (id INTEGER PRIMARY KEY, {EARLIER_COLUMNS})")
        row = ("removal", 0, 0.5, 0, "f1", "{}", "ok", "", 0.75, 0.5, 12, 34, 0.25, "1", "kd", 1.5)
        other.execute(f"INSERT INTO evaluations VALUES (1, {', '.join('?' * len(row))})", row)
    (read,) = read_records(tmp_path)
    assert (read.evaluation.latency_ms, read.evaluation.latency_iqr_ms, read.evaluation.size_mb) == (1.5, None, None)
    with Store(tmp_path / "evaluations.sqlite") as store:
        store.add([Record("removal", 1, 0.5, False, FINE)])
        assert store.records()[1].evaluation == FINE


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
