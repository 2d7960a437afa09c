"""Judging without training: build, look at a few images once, take a training-free score."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import final

import torch
from torch import nn

from n2n.data.base import TrainingData
from n2n.distill.teacher import Teacher
from n2n.evaluate.base import Evaluation, Status, evaluation_seed
from n2n.evaluate.closed_form import ClosedForm, closed_form
from n2n.evaluate.judging import Refuse, digest, judge
from n2n.evaluate.probing import draw_probe
from n2n.scores import NEEDS_TEACHER, SCORES, SOLVES, Probe, ScoreError
from search_spaces.base import Architecture, Cost, SearchSpace
from search_spaces.teacher.space import TeacherSpace


@final
@dataclass(frozen=True)
class Scoring:
    """See `scoring`; `probes` holds what the scores look at, one for each seed, the same for all students.

    `form` solves students for scores that look at what they have inherited.
    """

    space: SearchSpace
    score: str
    probes: tuple[Probe, ...] = field(repr=False)
    seed: int
    device: str
    teacher_parameters: int | None
    inherit: bool
    importance: str
    refuse: Refuse | None
    form: ClosedForm | None = None

    @property
    def fidelity(self) -> str:
        """How students are judged, in words."""
        start = f"inherited by {self.importance}" if self.inherit else "fresh"
        start = start if self.form is None else f"solved, {start}"
        seeds = f", mean of {len(self.probes)} seeds" if len(self.probes) > 1 else ""
        return f"{self.score} on {len(self.probes[0].images)} images, {start}{seeds}"

    @property
    def images_shown(self) -> int:
        """Forward passes of one image that scoring a student takes, a backward pass for two more."""
        return 3 * sum(len(probe.images) for probe in self.probes)

    @property
    def recipe_key(self) -> str:
        """A hash of what was asked for, besides teacher, data, student and seed: the same on every machine."""
        images = "".join(digest(probe.images) for probe in self.probes)
        parts = (
            self.score,
            images,
            str(self.inherit),
            self.importance,
            *(() if self.form is None else self.form.parts),
        )
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    @property
    def machine_key(self) -> str:
        """What of the machine a judgement depends on."""
        return torch.device(self.device).type

    def __call__(self, students: Sequence[Architecture]) -> list[Evaluation]:
        """One evaluation each, in the same order, failures included."""
        return [self._judge(student) for student in students]

    def prepare(self) -> None:
        """Takes the teacher's values that students are solved for: once here, instead of in every worker."""
        if self.form is not None:
            self.form.prepare()

    def _judge(self, student: Architecture) -> Evaluation:
        return judge(
            student,
            self._take,
            space=self.space,
            seed=self.seed,
            fidelity=self.fidelity,
            teacher_parameters=self.teacher_parameters,
            refuse=self.refuse,
            fails_by=(ScoreError,),
        )

    def _take(self, student: Architecture, cost: Cost, seed: int) -> Evaluation:
        scores = []
        for index, probe in enumerate(self.probes):
            own = seed if index == 0 else evaluation_seed(seed, str(index))
            network = self.space.build(student, inherit=self.inherit, importance=self.importance, seed=own)
            # A teacher that is drawn anew is the same for all students, so that it runs once and they compare.
            drawn = probe.seed if self.score in NEEDS_TEACHER else own
            seen = replace(probe, seed=drawn, solve=None if self.form is None else self._solver(student, own))
            scores.append(SCORES[self.score](network.to(self.device), seen))
        return Evaluation(
            fingerprint=student.fingerprint,
            architecture=student.to_json(),
            status=Status.OK,
            reason="",
            accuracy=None,
            loss=None,
            parameters=cost.parameters,
            macs=cost.macs,
            seconds=0.0,
            seed=seed,
            fidelity=self.fidelity,
            size_mb=cost.size_mb,
            score=math.fsum(score / len(scores) for score in scores),  # divided first: a sum may overflow
        )

    def _solver(self, student: Architecture, seed: int) -> Callable[[nn.Module], object]:
        assert self.form is not None
        return partial(self.form, student=student, seed=seed)


def scoring(
    space: SearchSpace,
    training: TrainingData,
    *,
    score: str = "naswot",
    batch: int = 64,
    seeds: int = 1,
    seed: int = 0,
    device: str = "cpu",
    teacher: Teacher | None = None,
    inherit: bool = False,
    importance: str = "l1",
    refuse: Refuse | None = None,
    against: nn.Module | None = None,
) -> Scoring:
    """An evaluator that takes a training-free score of every student; its evaluations have no accuracy.

    Args:
        space: builds the students; it need not be over a teacher.
        training: train images to look at; no other split is seen.
        score: one of `n2n.scores.SCORES`.
        batch: images of a probe, the same for all students, drawn by `seed`; all where there are fewer.
        seeds: how many networks of a student are scored, each from its own seed and on its own images; the mean counts.
        seed: of the run; every student's own seed derives from it and the student's fingerprint.
        device: where students are scored; the teacher, where given, must be there.
        teacher: for scores that compare with one. A student that is not smaller than it is INVALID; without one, than
            the space's own (`space.teacher_cost`).
        inherit: students have the teacher's weights instead of fresh ones; they always have for the scores in
            `n2n.scores.SOLVES` where space and teacher are such that there is something to inherit.
        importance: which of the teacher's channels they inherit.
        refuse: a reason not to score a student of a given cost, e.g. `budget.refusal`; it becomes INVALID.
        against: where there is no teacher to compress, the network that scores compare with, on the device; students of
            any size are scored then.

    Raises:
        ValueError: an unknown score, no images or seeds, no teacher for a score that compares with one, or two.
    """
    if score not in SCORES:
        raise ValueError(f"scoring: score must be one of {', '.join(SCORES)}; got {score!r}")
    if teacher is not None and against is not None:
        raise ValueError("scoring: expected a teacher, or against= where there is none; got both")
    compared = against if teacher is None else teacher.network
    if score in NEEDS_TEACHER and compared is None:
        raise ValueError(f"scoring: {score!r} compares students with a teacher, and there is none; give teacher=")
    for name, value in (("batch", batch), ("seeds", seeds)):
        if value < 1:
            raise ValueError(f"scoring: {name} must be 1 or more; got {value}")
    solved = score in SOLVES and teacher is not None and isinstance(space, TeacherSpace)
    draws = [evaluation_seed(seed, f"images {index}") for index in range(seeds)]
    return Scoring(
        space=space,
        score=score,
        probes=tuple(draw_probe(training, batch=batch, seed=one, device=device, teacher=compared) for one in draws),
        seed=seed,
        device=device,
        teacher_parameters=_parameters(space, teacher, against),
        inherit=inherit or solved,
        importance=importance,
        refuse=refuse,
        form=closed_form(space, training, importance=importance, seed=seed, device=device) if solved else None,
    )


def _parameters(space: SearchSpace, teacher: Teacher | None, against: nn.Module | None) -> int | None:
    """What a student must be smaller than; None where nothing is compressed."""
    if against is not None:
        return None
    return space.teacher_cost.parameters if teacher is None else teacher.parameters
