"""The end of a search of a published space: the best codes; the first of them trained, measured and written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from n2n.data.base import Data
from n2n.distill.fit import FitResult, fit
from n2n.distill.recipe import full_recipe
from n2n.distill.teacher import Teacher
from n2n.evaluate.base import Evaluation, Status, evaluation_seed
from n2n.networks import Timings
from n2n.networks.units import compression_text, millions
from n2n.search.artefacts import save_student
from n2n.search.conclude import StudentResult
from n2n.search.finish import Choice, Figures, interruptible, measure
from n2n.search.progress import Display
from n2n.search.space_options import SpaceOptions
from n2n.search.space_students import SpaceName
from search_spaces.published import PublishedArchitecture, PublishedSpace

BEST = 10
"""Codes that a result lists, or as many as there are finalists."""


@dataclass(frozen=True)
class Scored:
    """One of the best students of a run, by its short form."""

    code: str
    score: float
    parameters: int
    macs: int
    fingerprint: str


def best_of(evaluations: Sequence[Evaluation], many: int) -> tuple[Evaluation, ...]:
    """The students of the highest scores, each once; of equal scores the one with fewer parameters comes first."""
    fine = {one.fingerprint: one for one in evaluations if one.status is Status.OK and one.score is not None}
    ranked = sorted(fine.values(), key=lambda one: (-(one.score or 0.0), one.parameters, one.fingerprint))
    return tuple(ranked[:many])


def scored(space: PublishedSpace, one: Evaluation) -> Scored:
    """What a result says of a judged student."""
    code = space.from_json(one.architecture).code
    return Scored(code, one.score or 0.0, one.parameters, one.macs, one.fingerprint)


@dataclass(frozen=True)
class SpaceFinish:
    """What training the chosen students needs; without a teacher they are trained on the labels."""

    space: PublishedSpace
    data: Data
    example_inputs: Tensor
    options: SpaceOptions
    timings: Timings
    teacher: Teacher | None = None
    teacher_figures: Figures | None = None

    def measured(self, name: str, network: nn.Module) -> Figures:
        """The figures of a network on the run's data."""
        options = self.options
        return measure(
            network,
            self.example_inputs,
            self.data,
            device=options.device,
            precision=options.precision,
            timing=self.timings.of(name, network),
        )

    def finished(
        self, rank: int, choice: Choice, epochs: float, deadline: float | None, *, out: Path, display: Display
    ) -> tuple[StudentResult, FitResult]:
        """Trains a choice from fresh weights, measures it, and writes its folder; see `n2n.search.conclude`."""
        one = choice.evaluation
        architecture = self.space.from_json(one.architecture)
        seed = evaluation_seed(self.options.seed, one.fingerprint)
        student = self.space.build(architecture, inherit=False, seed=seed)
        fitted = self._trained(student, rank, seed, epochs, deadline, display)
        student.eval()
        figures = self.measured(one.fingerprint, student)
        result = StudentResult(
            rank=rank,
            fingerprint=one.fingerprint,
            folder=f"students/{rank}",
            reward=choice.reward,
            quick_accuracy=None,
            figures=figures,
            steps=fitted.steps,
            seconds=fitted.seconds,
        )
        self._save(out / result.folder, student, architecture, choice, result, fitted, seed, epochs)
        size = millions(figures.parameters)
        display.note(
            f"student {rank}, {architecture.code}: test accuracy {figures.test_accuracy:.2%}, {size} parameters"
        )
        return result, fitted

    def _trained(
        self, student: nn.Module, rank: int, seed: int, epochs: float, deadline: float | None, display: Display
    ) -> FitResult:
        options = self.options
        return interruptible(
            lambda progress: fit(
                student,
                self.data.training,
                full_recipe(epochs=epochs, objective=options.objective),
                teacher=self.teacher,
                seed=seed,
                device=options.device,
                precision=options.precision,
                progress=progress,
                deadline=deadline,
            ),
            rank,
            display,
        )

    def _save(
        self,
        folder: Path,
        student: nn.Module,
        architecture: PublishedArchitecture,
        choice: Choice,
        result: StudentResult,
        fitted: FitResult,
        seed: int,
        epochs: float,
    ) -> None:
        """Writes the student's folder with its card."""
        teacher, figures = self.teacher, result.figures
        made_by: dict[str, Any] = {
            "seed": self.options.seed,
            "student_seed": seed,
            "score": {self.options.evaluate: choice.evaluation.score},
            "recipe": asdict(full_recipe(epochs=epochs, objective=self.options.objective)),
            "search": self.options.to_json(),
        }
        told = {
            **figures.to_json(),
            "data": self.data.name,
            "training_steps": result.steps,
            "training_note": fitted.reason,
        }
        if teacher is not None:
            made_by = {"teacher": teacher.name, "teacher_fingerprint": teacher.fingerprint, **made_by}
            told["compression"] = compression_text(teacher.parameters, figures.parameters)
        save_student(
            folder,
            student,
            architecture,
            example_inputs=self.example_inputs,
            figures=told,
            data=self.data,
            teacher_figures=None if self.teacher_figures is None else self.teacher_figures.to_json(),
            made_by=made_by,
            space=SpaceName.of(self.space, architecture),
        )
