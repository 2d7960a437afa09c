"""The finish: what a deadline, an interrupt and the figures of the finished students do to it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor, nn

from n2n.data import Data
from n2n.distill.teacher import Teacher
from n2n.evaluate.fake import fake
from n2n.networks import Timings
from n2n.reward import Budget
from n2n.search.conclude import Concluded, Finish, Persistence, conclude
from n2n.search.finish import Choice
from n2n.search.options import SearchOptions
from n2n.search.progress import Display, Silent
from n2n.search.spaces import TeacherSpaces
from search_spaces.base import replay
from search_spaces.smallest import smallest


class Impatient:
    """Interrupts the distillation of a student at its third step."""

    def __init__(self, name: str) -> None:
        self.name, self.current = name, ""

    def begin(self, name: str, total: int) -> None:
        self.current = name

    def update(self, done: int, remark: str = "", best: float | None = None) -> None:
        if self.current == self.name and done == 3:
            raise KeyboardInterrupt

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def finish(network: nn.Module, example: Tensor, digits: Data) -> Finish:
    options = SearchOptions(final_epochs=0.3)
    return Finish(Teacher(network, digits.training), digits, example, options, Timings(example))


def concluded(
    finish: Finish, out: Path, *, budget: Budget | None = None, display: Display | None = None, quick: float = 0.0
) -> Concluded:
    """Finishes two students: the narrowest, and one of half the widths."""
    space = TeacherSpaces(finish.teacher.network, finish.example_inputs, finish.options).shrinkage(None, Budget())
    students = [smallest(space), space.student(replay(space, (4,) * space.num_decisions))]
    judged = fake(space, lambda student: quick)(students)
    choices = [Choice(one, 0.5, ()) for one in judged]
    spaces = {one.fingerprint: space for one in judged}
    return conclude(choices, spaces, finish, out, display or Silent(), budget=budget or Budget())


def test_without_a_limit_both_are_finished(finish: Finish, tmp_path: Path) -> None:
    done = concluded(finish, tmp_path)
    assert [student.rank for student in done.students] == [1, 2]
    assert all(student.meets_budget and student.steps > 3 for student in done.students)
    assert done.notes == []


def test_a_student_that_ends_below_its_quick_judgement_is_told(finish: Finish, tmp_path: Path) -> None:
    done = concluded(finish, tmp_path, quick=0.5)
    assert len(done.notes) == 2
    assert "on validation, below the 50.00% of its quick judgement: distil longer" in done.notes[0]


def test_a_deadline_cuts_short_and_leaves_out_and_says_so(finish: Finish, tmp_path: Path) -> None:
    done = concluded(replace(finish, deadline=time.monotonic()), tmp_path)
    assert [(student.rank, student.steps) for student in done.students] == [(1, 0)]
    assert "The distillation of student 1 was cut short: stopped at the deadline after 0 of" in done.notes[0]
    assert "1 of 2 students" in done.notes[1]


def test_finished_students_are_held_against_the_budget_by_their_own_figures(finish: Finish, tmp_path: Path) -> None:
    done = concluded(finish, tmp_path, budget=Budget(max_latency_ms=1e-6))
    assert all("ms, 1e-06 ms allowed" in student.violations[0] for student in done.students)
    assert "Student 1 misses the budget as measured" in done.notes[0]
    measured = concluded(finish, tmp_path, budget=Budget(max_latency_ms=1e6))
    assert all(student.meets_budget for student in measured.students), "nobody had measured it before"


def test_an_interrupted_student_is_finished_as_it_is_and_the_rest_left_out(finish: Finish, tmp_path: Path) -> None:
    done = concluded(finish, tmp_path, display=Impatient("student 1"))
    assert [student.rank for student in done.students] == [1]
    assert (tmp_path / "students/1/model.safetensors").exists()
    assert done.interrupted
    assert done.notes == ["The distillation of student 1 was cut short: interrupted after 3 steps."]


def test_interrupted_work_is_done_again_once() -> None:
    calls: list[int] = []

    def work() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return "done"

    hold = Persistence()
    assert (hold.do(work), hold.interrupted, len(calls)) == ("done", True, 2)
    assert (hold.do(work), len(calls)) == ("done", 3)
