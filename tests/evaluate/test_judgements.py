"""The file of judgements: what goes in comes out, whatever moment its writer was killed at, and damage is named."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from n2n.evaluate.base import Evaluation, Status
from n2n.evaluate.judgements import Judgement, append_judgement, keys, read_judgements

FINE = Judgement("refit:0", 0, "a1", 120, 3400, 0.12, 0.5, "ok", 0.75, 0.5, 0.25, None, 0.125)
FAILED = replace(FINE, fingerprint="b2", status="failed", accuracy=None, agreement=None, loss=None, reason="diverged")
SCORED = replace(FINE, rung="score:naswot", accuracy=None, agreement=None, loss=None, score=-12.5)
ROWS = (FINE, FAILED, SCORED)

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
shares = st.none() | st.floats(0, 1)
numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False)
judgements = st.builds(
    Judgement,
    rung=st.sampled_from(("refit:0", "inherited:2e", "score:naswot")),
    seed=st.integers(0, 2**40),
    fingerprint=st.text("0123456789abcdef", min_size=1, max_size=16),
    parameters=st.integers(0, 10**9),
    macs=st.integers(0, 10**12),
    share=st.floats(0, 1),
    removed=st.floats(0, 1),
    status=st.sampled_from([str(one.value) for one in Status]),
    accuracy=shares,
    agreement=numbers,
    loss=numbers,
    score=numbers,
    seconds=st.floats(0, 1e6),
    reason=texts,
)


def written(path: Path, rows: Sequence[Judgement]) -> Path:
    for one in rows:
        append_judgement(path, one)
    return path


def test_an_evaluation_becomes_a_judgement() -> None:
    found = Evaluation("f", "{}", Status.OK, "", 0.5, 1.25, 12, 34, 0.12345, 7, "kd", agreement=0.75)
    one = Judgement.of("refit:0", 3, found, share=0.123456, removed=0.33333)
    assert one == Judgement("refit:0", 3, "f", 12, 34, 0.1235, 0.333, "ok", 0.5, 0.75, 1.25, None, 0.123)
    assert one.ok
    assert not FAILED.ok
    assert keys([one, FINE]) == {("refit:0", 3, "f"), ("refit:0", 0, "a1")}


def test_rows_come_back_in_order(tmp_path: Path) -> None:
    assert read_judgements(tmp_path / "none.csv") == []
    assert read_judgements(written(tmp_path / "own.csv", ROWS)) == list(ROWS)


@given(st.lists(judgements, max_size=4))
@settings(max_examples=50)
def test_whatever_goes_in_comes_out(rows: list[Judgement]) -> None:
    with TemporaryDirectory() as folder:
        found = read_judgements(written(Path(folder) / "own.csv", rows))
    assert found == [replace(one, reason=" ".join(one.reason.splitlines())) for one in rows]


@pytest.mark.parametrize("reason", ["out of memory\ntried to allocate 3 GiB", 'the "net"\r\nfails, badly'])
def test_a_reason_of_several_lines_stays_one_row(tmp_path: Path, reason: str) -> None:
    path = written(tmp_path / "own.csv", [replace(FAILED, reason=reason), FINE])
    assert len(path.read_text().splitlines()) == 3
    assert read_judgements(path)[0].reason == reason.replace("\r", "").replace("\n", " ")


def test_a_file_cut_off_anywhere_loses_only_the_row_that_was_being_written(tmp_path: Path) -> None:
    content = written(tmp_path / "whole.csv", ROWS).read_bytes()
    ends = [at + 1 for at, byte in enumerate(content) if byte == ord("\n")]
    path = tmp_path / "cut.csv"
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        kept = list(ROWS[: max(0, sum(end <= length for end in ends) - 1)])  # the first line is the header
        assert read_judgements(path) == kept, length
        append_judgement(path, FINE)
        assert read_judgements(path) == [*kept, FINE], length


def test_a_row_whose_seconds_were_cut_off_is_not_taken_for_whole(tmp_path: Path) -> None:
    path = written(tmp_path / "own.csv", [FINE, replace(FINE, fingerprint="c3", seconds=12.5)])
    content = path.read_text()
    path.write_text(content[: content.rindex("12.5") + 2])  # it reads as 12 seconds
    assert read_judgements(path) == [FINE]


@pytest.mark.parametrize(
    ("old", "new"), [("a1", "a1,"), (",120,", ",many,"), (",ok,", ",fine,"), (",0.125,", "\n"), ("0.25", "low")]
)
def test_a_damaged_row_names_file_and_line(tmp_path: Path, old: str, new: str) -> None:
    path = written(tmp_path / "own.csv", [FAILED, FINE])
    first, second, third = path.read_text().splitlines()
    path.write_text("\n".join((first, second, third.replace(old, new, 1))) + "\n")
    with pytest.raises(ValueError, match=r"own\.csv, line 3 is damaged .*delete the line, it is made again"):
        read_judgements(path)
    append_judgement(path, SCORED)
    with pytest.raises(ValueError, match="line 3 is damaged"):
        read_judgements(path)


@pytest.mark.parametrize(("content", "words"), [(b"a,b\n1,2\n", "column rung is missing"), (b"\xff\xfe\n", "utf-8")])
def test_another_file_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "own.csv").write_bytes(content)
    with pytest.raises(ValueError, match=rf"own\.csv is not a file of judgements.*{words}"):
        read_judgements(tmp_path / "own.csv")


def test_further_columns_survive(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    append_judgement(path, FINE, {"commit": "c0ffee", "machine": "a, b"})
    append_judgement(path, FAILED)
    append_judgement(path, SCORED, {"machine": "c", "commit": "beef"})
    path.write_bytes(path.read_bytes()[:-3])
    append_judgement(path, SCORED, {"machine": "d\ne", "commit": "beef"})
    assert read_judgements(path) == list(ROWS)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(one["commit"], one["machine"]) for one in rows] == [("c0ffee", "a, b"), ("", ""), ("beef", "d e")]


def test_a_further_column_that_the_file_does_not_have_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "own.csv", [FINE])
    with pytest.raises(ValueError, match=r"own\.csv has no column commit, expected some of rung, seed"):
        append_judgement(path, FAILED, {"commit": "c0ffee"})
    assert read_judgements(path) == [FINE]
