"""From the judged students to finished ones: build, distil at length, measure, write each into its folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from n2n.data.base import Data
from n2n.distill.fit import FitResult
from n2n.distill.precision import Wish
from n2n.distill.probe import Probed
from n2n.distill.teacher import Teacher
from n2n.evaluate.base import evaluation_seed
from n2n.evaluate.closed_form import closed_form
from n2n.networks import Timings
from n2n.networks.units import compression_text, millions
from n2n.reward import Budget
from n2n.search.artefacts import TeacherName, save_student
from n2n.search.errors import WriteError
from n2n.search.files import write_json
from n2n.search.finish import (
    INTERRUPTED,
    UNDONE,
    Choice,
    Figures,
    distill_student,
    interruptible,
    long_recipe,
    measure,
)
from n2n.search.options import SearchOptions
from n2n.search.progress import Display
from search_spaces.base import Architecture, SearchSpace

T = TypeVar("T")


@dataclass(frozen=True)
class StudentResult:
    """A finished student: where it is and what was measured.

    `quick_accuracy` is what the search saw, `steps` and `seconds` are those of the long distillation, `violations` name
    the budgets that it misses by its own figures.
    """

    rank: int
    fingerprint: str
    folder: str
    reward: float
    quick_accuracy: float | None
    figures: Figures
    steps: int
    seconds: float
    violations: tuple[str, ...] = ()

    @property
    def meets_budget(self) -> bool:
        """Whether no budget is missed."""
        return not self.violations

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {**asdict(self), "violations": list(self.violations)}


@dataclass(frozen=True)
class Finish:
    """What the long distillation needs besides the student.

    `timings` holds the latencies that the run has measured, the teacher's and the students' by fingerprint; `deadline`
    is a `time.monotonic()` value, None for none; `probed` is what was found to be fastest on this machine, None where
    that was not tried; `times_students` says whether students are timed as they are judged quickly.
    """

    teacher: Teacher
    data: Data
    example_inputs: Tensor
    options: SearchOptions
    timings: Timings
    teacher_name: TeacherName | None = None
    deadline: float | None = None
    probed: Probed | None = None
    times_students: bool = True

    @property
    def precision(self) -> Wish:
        """How all networks of the run are computed."""
        return self.options.precision if self.probed is None else self.probed.wish

    @property
    def threads(self) -> int | None:
        """The run's threads, chosen or measured; None where torch's own setting stays."""
        if self.probed is not None:
            return self.probed.threads
        return self.options.threads if isinstance(self.options.threads, int) else None

    @property
    def spent(self) -> float:
        """Seconds of the time limit that are gone; 0 where there is none."""
        if self.deadline is None or self.options.seconds is None:
            return 0.0
        return self.options.seconds - (self.deadline - time.monotonic())

    def measured(self, fingerprint: str, network: nn.Module) -> Figures:
        """The figures of a network on the run's data; it is timed only where the run has not done so."""
        return measure(
            network,
            self.example_inputs,
            self.data,
            device=self.options.device,
            precision=self.precision,
            timing=self.timings.of(fingerprint, network),
        )


@dataclass
class Concluded:
    """The finished students so far, and remarks for the report."""

    students: list[StudentResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False
    unwritten: bool = False


@dataclass
class Persistence:
    """Redoes, once for each piece of work, what an interrupt cut off, and remembers that there was one."""

    interrupted: bool = False

    def do(self, work: Callable[[], T]) -> T:
        """What `work` gives; it must not mind being begun again."""
        try:
            return work()
        except KeyboardInterrupt:
            self.interrupted = True
            return work()


def conclude(
    choices: Sequence[Choice],
    space_of: Mapping[str, SearchSpace],
    finish: Finish,
    out: Path,
    display: Display,
    *,
    budget: Budget,
    teacher: Figures | None = None,
    measuring: float = 0.0,
    interrupted: bool = False,
    earlier: Mapping[tuple[int, str], tuple[StudentResult, FitResult]] | None = None,
) -> Concluded:
    """Distils and writes the chosen students, best first.

    After an interrupt one student gets at most one epoch. An interrupt of a distillation finishes its student as it is
    and leaves the rest out; another one leaves out that student too. A full disk ends it, with what is written so far.
    The deadline cuts a distillation short, and leaves out all but the first student.

    Args:
        space_of: the space of each student's stage, by fingerprint.
        budget: what the finished students' figures are held against.
        teacher: the teacher's figures, for the students' cards.
        measuring: seconds to keep for measuring each student before the deadline.
        earlier: students, by rank and fingerprint, that an earlier attempt has finished and written.
    """

    def finished(rank: int, choice: Choice, epochs: float, deadline: float | None) -> tuple[StudentResult, FitResult]:
        space = space_of[choice.evaluation.fingerprint]
        return _One(rank, choice, space, finish, epochs, deadline, teacher).finished(out, display, budget)

    return concluding(
        choices,
        finished,
        out,
        epochs=finish.options.final_epochs,
        deadline=None if finish.deadline is None else finish.deadline - measuring,
        interrupted=interrupted,
        earlier=earlier,
    )


Finishing = Callable[[int, Choice, float, float | None], tuple[StudentResult, FitResult]]
"""Trains a choice, the rank-th, for so many epochs until a deadline; measures it, and writes its folder."""


def concluding(
    choices: Sequence[Choice],
    finished: Finishing,
    out: Path,
    *,
    epochs: float,
    deadline: float | None,
    interrupted: bool = False,
    earlier: Mapping[tuple[int, str], tuple[StudentResult, FitResult]] | None = None,
) -> Concluded:
    """Finishes the chosen students one after the other, whatever they are of; see `conclude`."""
    done = Concluded(interrupted=interrupted)
    full, epochs = epochs, min(1.0, epochs) if interrupted else epochs
    planned = choices[:1] if interrupted else choices
    if interrupted:
        done.notes.append(f"The search was interrupted: {len(planned)} student was distilled, for {epochs:g} epoch.")
    kept: list[dict[str, Any]] = []
    for rank, choice in enumerate(planned, start=1):
        if rank > 1 and deadline is not None and time.monotonic() >= deadline:
            done.notes.append(f"The time limit was reached: {rank - 1} of {len(planned)} students were distilled.")
            break
        known = (earlier or {}).get((rank, choice.evaluation.fingerprint))
        try:
            if known is None:
                write_json(out / "finished.json", {"students": kept})  # before a folder of an earlier attempt goes
            student, fitted = known or finished(rank, choice, epochs, deadline)
            if epochs == full and not fitted.reason.startswith(INTERRUPTED):
                kept.append({"student": student.to_json(), "fitted": asdict(fitted)})
                write_json(out / "finished.json", {"students": kept})
        except KeyboardInterrupt:
            done.notes.append(f"The long distillation was interrupted at student {rank} of {len(planned)}.")
            done.interrupted = True
            break
        except WriteError as error:
            done.notes.append(f"Student {rank} could not be written: {error}")
            done.unwritten = True
            break
        done.students.append(student)
        done.notes += _remarks(student, choice, fitted)
        if fitted.reason.startswith(INTERRUPTED):
            done.interrupted = True
            break
    return done


LOST = 0.02
"""By how much a finished student may be below its quick judgement, which sees fewer images, without a word."""


def _remarks(student: StudentResult, choice: Choice, fitted: FitResult) -> list[str]:
    notes = []
    if fitted.reason:
        what = "diverged" if fitted.diverged else "was in vain" if UNDONE in fitted.reason else "was cut short"
        notes.append(f"The distillation of student {student.rank} {what}: {fitted.reason}.")
    quick, final = student.quick_accuracy, student.figures.validation_accuracy
    if quick is not None and final is not None and final < quick - LOST:
        notes.append(
            f"Student {student.rank} ended at {final:.2%} on validation, below the {quick:.2%} of its quick judgement:"
            " distil longer (final_epochs), or from where it was judged (final_start='refit')."
        )
    if student.violations and not choice.violations:
        notes.append(f"Student {student.rank} misses the budget as measured: {'; '.join(student.violations)}.")
    return notes


@dataclass(frozen=True)
class _One:
    """A chosen student on its way to being finished."""

    rank: int
    choice: Choice
    space: SearchSpace
    finish: Finish
    epochs: float
    deadline: float | None
    teacher: Figures | None

    def finished(self, out: Path, display: Display, budget: Budget) -> tuple[StudentResult, FitResult]:
        """Builds, distils, measures and writes it."""
        options, one = self.finish.options, self.choice.evaluation
        architecture = self.space.from_json(one.architecture)
        seed = evaluation_seed(options.seed, one.fingerprint)
        student = self.space.build(
            architecture, inherit=options.begins != "fresh", importance=options.importance, seed=seed
        )
        if options.begins == "refit":
            solve = closed_form(
                self.space,
                self.finish.data.training,
                importance=options.importance,
                seed=options.seed,
                device=options.device,
            )
            solve(student, architecture, seed=seed)
        fitted = self._distilled(student, seed, display)
        student.eval()
        figures = self.finish.measured(one.fingerprint, student)
        measured = replace(
            one,
            parameters=figures.parameters,
            macs=figures.macs,
            latency_ms=figures.latency_ms,
            size_mb=figures.size_mb,
        )
        result = StudentResult(
            rank=self.rank,
            fingerprint=one.fingerprint,
            folder=f"students/{self.rank}",
            reward=self.choice.reward,
            quick_accuracy=one.expected,
            figures=figures,
            steps=fitted.steps,
            seconds=fitted.seconds,
            violations=tuple(budget.violations(measured)),
        )
        self._save(out / result.folder, student, architecture, result, fitted, seed)
        size = millions(figures.parameters)
        display.note(f"student {self.rank}: test accuracy {figures.test_accuracy:.2%}, {size} parameters")
        return result, fitted

    def _distilled(self, student: nn.Module, seed: int, display: Display) -> FitResult:
        options = self.finish.options
        return interruptible(
            lambda progress: distill_student(
                student,
                self.finish.teacher,
                self.finish.data.training,
                epochs=self.epochs,
                objective=options.objective,
                start=options.begins,
                seed=seed,
                device=options.device,
                precision=self.finish.precision,
                progress=progress,
                deadline=self.deadline,
            ),
            self.rank,
            display,
        )

    def _save(
        self,
        folder: Path,
        student: nn.Module,
        architecture: Architecture,
        result: StudentResult,
        fitted: FitResult,
        seed: int,
    ) -> None:
        """Writes the student's folder with its card."""
        finish, options = self.finish, self.finish.options
        save_student(
            folder,
            student,
            architecture,
            example_inputs=finish.example_inputs,
            teacher_name=finish.teacher_name,
            figures={
                **result.figures.to_json(),
                "compression": compression_text(finish.teacher.parameters, result.figures.parameters),
                "data": finish.data.name,
                "distillation_steps": result.steps,
                "distillation_note": fitted.reason,
            },
            data=finish.data,
            layers=self.space.changes(architecture),
            teacher_figures=None if self.teacher is None else self.teacher.to_json(),
            made_by={
                "teacher": finish.teacher.name,
                "teacher_fingerprint": finish.teacher.fingerprint,
                "seed": options.seed,
                "student_seed": seed,
                "stage": self.space.name,
                "reward": result.reward,
                "quick_accuracy": result.quick_accuracy,
                "recipe": asdict(long_recipe(self.epochs, options.objective, options.begins)),
                "search": options.to_json(),
            },
        )
