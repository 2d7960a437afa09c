"""What is seen of a sweep while it runs, and how what trials tell becomes that."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from rich.console import Console

from n2n.sweep.rows import Ending
from n2n.sweep.shown import Board, Line, Nothing, Plain, drawn
from n2n.sweep.tune import Reports, Watch, last_line


def test_plain_lines_are_told_once_for_each_fifth_and_state() -> None:
    stream = io.StringIO()
    shown = Plain(stream)
    shown.show([Line("a", 10), Line("b", 10)])
    for students in (1, 2, 3):
        shown.show([Line("a", 10, "running", students, 0.5), Line("b", 10)])
    shown.show([Line("a", 10, "finished", 10, 0.75), Line("b", 10)])
    assert stream.getvalue().splitlines() == [
        "a: running, 1 of 10 students judged, best reward 0.500",
        "a: running, 2 of 10 students judged, best reward 0.500",
        "a: finished, 10 of 10 students judged, best reward 0.750",
    ]


def test_the_table_keeps_what_is_worth_a_look() -> None:
    lines = [*(Line(f"done-{at}", 4, "finished", 4, 0.9) for at in range(8)), Line("now", 4, "running", 2, 0.3)]
    console = Console(file=io.StringIO(), width=80, record=True)
    console.print(drawn(lines, rows=3))
    text = console.export_text()
    assert "now" in text
    assert "2 of 4" in text
    assert "0.300" in text
    assert "and 6 more" in text
    assert "done-7" not in text


def test_the_live_table_is_left_on_the_screen() -> None:
    stream = io.StringIO()
    board = Board(Console(file=stream, force_terminal=True, width=80))
    board.show([Line("a", 4, "finished", 4, 0.5)])
    board.close()
    assert "finished" in stream.getvalue()


def test_a_whole_search_is_counted_over_its_stages() -> None:
    told: list[tuple[int, float]] = []
    shown = Reports(lambda students, best: told.append((students, best)))
    shown.begin("removal", 4)
    shown.update(2, best=0.5)
    shown.update(4, best=0.6)
    shown.begin("shrinkage", 4)
    shown.update(3, best=0.4)
    shown.begin("student 1", 600)
    shown.update(300, "loss 1.0")
    assert told == [(2, 0.5), (4, 0.6), (7, 0.6)]
    assert shown.students == 7


class Seen:
    """Keeps the last lines."""

    def __init__(self) -> None:
        self.lines: Sequence[Line] = ()

    def show(self, lines: Sequence[Line]) -> None:
        self.lines = [*lines]

    def close(self) -> None:
        """Nothing to do."""


def test_what_tune_tells_becomes_lines_and_endings() -> None:
    kept: list[Mapping[str, Ending]] = []
    seen = Seen()
    watch = Watch([Line(name, 4) for name in "abcd"], seen, lambda endings: kept.append({**endings}))
    for name in "abcd":
        watch.begun(name)
    watch.reported("a", {"students": 2, "best_reward": 0.5})
    watch.begun("a")  # it died, and is tried again from the first batch on
    watch.reported("a", {"students": 1, "best_reward": 0.2})
    assert seen.lines[0] == Line("a", 4, "running", 2, 0.5)
    watch.reported("a", {"students": 4, "best_reward": 0.7, "ended": "finished", "why": ""})
    watch.completed("a")
    watch.reported("b", {"students": 2, "best_reward": 0.1})
    watch.completed("b")
    watch.reported("c", {"students": 0, "best_reward": -1.0, "ended": "failed", "why": "no teacher"})
    watch.completed("c")
    watch.died("d", "RuntimeError: no memory")
    assert [(one.state, one.students, one.best) for one in seen.lines] == [
        ("finished", 4, 0.7),
        ("stopped", 2, 0.1),
        ("failed", 0, None),
        ("failed", 0, None),
    ]
    assert {name: one.state for name, one in kept[-1].items()} == dict(
        zip("abcd", ("finished", "stopped", "failed", "failed"), strict=True)
    )
    assert "after 2 students" in kept[-1]["b"].reason
    assert kept[-1]["c"].reason == "no teacher"


def test_the_last_line_of_a_traceback_is_the_reason() -> None:
    assert last_line("Traceback:\n  File x\nValueError: bad\n\n") == "ValueError: bad"
    assert last_line("") == "the process of the trial died; its log is in Ray's folder"
    Nothing().show([])
