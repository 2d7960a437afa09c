"""From the judged students to finished ones: build, distil at length, measure, write each into its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from n2n.data.base import Data
from n2n.distill.teacher import Teacher
from n2n.evaluate.base import Evaluation, evaluation_seed
from n2n.search.artefacts import TeacherName, save_student
from n2n.search.errors import WriteError
from n2n.search.files import write_csv
from n2n.search.finish import Choice, Figures, distill_student, measure
from n2n.search.front import front
from n2n.search.options import SearchOptions
from n2n.search.progress import Display
from search_spaces.base import SearchSpace


@dataclass(frozen=True)
class StudentResult:
    """A finished student: where it is and what was measured.

    `quick_accuracy` is what the search saw, `steps` and `seconds` are those of the long distillation, `violations` name
    the budgets that it misses (none for a student that was eligible).
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
    """What the long distillation needs besides the student."""

    teacher: Teacher
    data: Data
    example_inputs: Tensor
    options: SearchOptions
    teacher_name: TeacherName | None = None


@dataclass
class Concluded:
    """The finished students so far, and remarks for the report."""

    students: list[StudentResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def conclude(
    choices: Sequence[Choice],
    space_of: Mapping[str, SearchSpace],
    finish: Finish,
    out: Path,
    display: Display,
    *,
    interrupted: bool = False,
) -> Concluded:
    """Distils and writes the chosen students, best first.

    After an interrupt one student gets at most one epoch; a second interrupt leaves the rest out. A full disk ends it
    too, with what is written so far.

    Args:
        space_of: the space of each student's stage, by fingerprint.
    """
    done = Concluded()
    epochs = min(1.0, finish.options.final_epochs) if interrupted else finish.options.final_epochs
    planned = choices[:1] if interrupted else choices
    if interrupted:
        done.notes.append(f"The search was interrupted: {len(planned)} student was distilled, for {epochs:g} epoch.")
    for rank, choice in enumerate(planned, start=1):
        space = space_of[choice.evaluation.fingerprint]
        try:
            done.students.append(_one(rank, choice, space, finish, epochs, out, display))
        except KeyboardInterrupt:
            done.notes.append(f"The long distillation was interrupted at student {rank} of {len(planned)}.")
            break
        except WriteError as error:
            done.notes.append(f"Student {rank} could not be written: {error}")
            break
    return done


def _one(
    rank: int, choice: Choice, space: SearchSpace, finish: Finish, epochs: float, out: Path, display: Display
) -> StudentResult:
    options, one = finish.options, choice.evaluation
    architecture = space.from_json(one.architecture)
    seed = evaluation_seed(options.seed, one.fingerprint)
    student = space.build(architecture, inherit=options.inherit, importance=options.importance, seed=seed)

    def shown(step: int, total: int, loss: float) -> None:
        if step == 1:
            display.begin(f"student {rank}", total)
        display.update(step, f"loss {loss:.3f}")

    fitted = distill_student(
        student,
        finish.teacher,
        finish.data.training,
        epochs=epochs,
        objective=options.objective,
        seed=seed,
        device=options.device,
        precision=options.precision,
        progress=shown,
    )
    student.eval()
    figures = measure(student, finish.example_inputs, finish.data, device=options.device, precision=options.precision)
    result = StudentResult(
        rank=rank,
        fingerprint=one.fingerprint,
        folder=f"students/{rank}",
        reward=choice.reward,
        quick_accuracy=one.accuracy,
        figures=figures,
        steps=fitted.steps,
        seconds=fitted.seconds,
        violations=choice.violations,
    )
    _save(out / result.folder, student, architecture, finish, result, diverged=fitted.reason)
    display.note(
        f"student {rank}: test accuracy {figures.test_accuracy:.2%}, {figures.parameters / 1e6:.4g} M parameters"
    )
    return result


def _save(
    folder: Path, student: nn.Module, architecture: Any, finish: Finish, result: StudentResult, *, diverged: str
) -> None:
    card = {
        **result.figures.to_json(),
        "compression": f"{finish.teacher.parameters / max(1, result.figures.parameters):.1f}x",
        "data": finish.data.name,
        "distillation_steps": result.steps,
        "distillation_note": diverged,
    }
    save_student(
        folder,
        student,
        architecture,
        example_inputs=finish.example_inputs,
        teacher_name=finish.teacher_name,
        figures=card,
    )


FRONT_COLUMNS = ("fingerprint", "accuracy", "parameters", "macs", "on_parameters", "on_macs", "architecture")


def write_front(path: Path, evaluations: Sequence[Evaluation]) -> tuple[Evaluation, ...]:
    """Writes the union of both fronts as CSV, smallest student first, and returns the front over parameters."""
    over_parameters, over_macs = front(evaluations), front(evaluations, by="macs")
    on_parameters = {one.fingerprint for one in over_parameters}
    on_macs = {one.fingerprint for one in over_macs}
    both = {one.fingerprint: one for one in (*over_parameters, *over_macs)}
    rows = [
        (
            one.fingerprint,
            one.accuracy,
            one.parameters,
            one.macs,
            int(one.fingerprint in on_parameters),
            int(one.fingerprint in on_macs),
            one.architecture,
        )
        for one in sorted(both.values(), key=lambda one: (one.parameters or 0, one.fingerprint))
    ]
    write_csv(path, FRONT_COLUMNS, rows)
    return over_parameters
