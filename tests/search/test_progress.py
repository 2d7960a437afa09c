"""What is said while a search runs, and a log that a full disk ends without ending the run."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import pytest

from n2n.search.progress import Lines, Logged, LogWarning, Silent, display


def test_remarks_go_to_the_display_and_the_log(tmp_path: Path) -> None:
    shown = io.StringIO()
    with Logged(Lines(shown), tmp_path / "run.log") as display:
        display.begin("removal", 10)
        display.update(5, "half")
        display.note("done")
    assert shown.getvalue() == "removal: 5/10 half\ndone\n"
    assert (tmp_path / "run.log").read_text() == "begin removal, 10\ndone\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_ends_the_log_with_one_warning() -> None:
    shown = io.StringIO()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with Logged(Lines(shown), Path("/dev/full")) as display:
            display.begin("removal", 10)
            display.note("one")
            display.note("two")
    assert [one.category for one in said] == [LogWarning]
    assert "/dev/full: No space left on device; the run goes on without a log" in str(said[0].message)
    assert shown.getvalue() == "one\ntwo\n"


def test_a_log_that_cannot_be_opened_is_left_out(tmp_path: Path) -> None:
    shown = io.StringIO()
    with pytest.warns(LogWarning, match=r"nowhere/run.log: No such file"):
        display = Logged(Lines(shown), tmp_path / "nowhere" / "run.log")
    with display:
        display.note("one")
    assert shown.getvalue() == "one\n"


def test_a_display_of_ones_own_is_told_the_best_reward(tmp_path: Path) -> None:
    told: list[tuple[int, float | None]] = []

    class Own(Silent):
        def update(self, done: int, remark: str = "", best: float | None = None) -> None:
            told.append((done, best))

    with Logged(display(Own()), tmp_path / "run.log") as shown:
        shown.update(5, "best reward 0.250", 0.25)
        shown.update(7, "loss 1.000")
    assert told == [(5, 0.25), (7, None)]
