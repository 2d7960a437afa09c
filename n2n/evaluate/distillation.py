"""Judging by quick distillation: build, start well, distil for a few steps, read the validation accuracy."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor

from n2n.data.base import Split, TrainingData
from n2n.distill.accuracy import accuracy_of, agreement, predict
from n2n.distill.fit import check_objective, fit, prepare_views
from n2n.distill.precision import Wish, resolve
from n2n.distill.recipe import Recipe, forward_passes, gentle, identity, quick_recipe, total_steps
from n2n.distill.teacher import Teacher
from n2n.evaluate.base import Evaluation, Status
from n2n.evaluate.closed_form import ClosedForm, closed_form
from n2n.evaluate.judging import Refuse, digest, judge
from n2n.networks.latency import Timings, device_name
from search_spaces.base import Architecture, Cost, SearchSpace

STARTS = ("inherited", "refit", "fresh")
"""What a student starts from."""


class DivergedError(RuntimeError):
    """A student trained, but its loss stopped being a finite number."""


@final
@dataclass(frozen=True)
class Distillation:
    """See `distillation`."""

    space: SearchSpace
    teacher: Teacher
    training: TrainingData
    recipe: Recipe
    subset: Tensor | None
    validation: Split
    seed: int
    device: str
    precision: Wish
    start: str
    importance: str
    closed_form: ClosedForm | None
    timings: Timings | None
    refuse: Refuse | None

    @property
    def fidelity(self) -> str:
        """How students are judged, in words."""
        images = len(self.training.train) if self.subset is None else len(self.subset)
        start = "fresh" if self.start == "fresh" else f"{self.start} by {self.importance}"
        steps = total_steps(self.recipe, images)
        if not steps and self.closed_form is not None:
            return f"solved on {len(self.closed_form.images)} images, {start}, accuracy on {len(self.validation)}"
        return (
            f"{self.recipe.objective}, {steps} steps of {min(self.recipe.batch_size, images)} on {images} images,"
            f" {start}, accuracy on {len(self.validation)}"
        )

    @property
    def images_shown(self) -> int:
        """Forward passes of one image that judging a student takes, a trained image for three."""
        images = len(self.training.train) if self.subset is None else len(self.subset)
        return forward_passes(self.recipe, images, len(self.validation))

    @property
    def recipe_key(self) -> str:
        """A hash of what was asked for, besides teacher, data, student and seed: the same on every machine."""
        form = self.closed_form
        parts = (
            identity(self.recipe),
            digest(self.subset),
            digest(self.validation.labels) + digest(self.validation.images),
            self.start,
            self.importance,
            "" if form is None else " ".join(form.parts),
        )
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    @property
    def machine_key(self) -> str:
        """What of the machine a judgement depends on: the device, its number format, and its name where it is timed."""
        device = torch.device(self.device)
        timed = "" if self.timings is None else device_name(device)
        return f"{device.type} {resolve(self.precision, self.teacher.network, self.device).name} {timed}".strip()

    def __call__(self, students: Sequence[Architecture]) -> list[Evaluation]:
        """One evaluation each, in the same order, failures included."""
        return [self._judge(student) for student in students]

    def prepare(self) -> None:
        """Has the teacher look at all views that students are distilled on: once here, instead of in every worker."""
        prepare_views(self.training, self.recipe, self.teacher, self.subset)
        self.teacher.logits(self.validation)
        if self.closed_form is not None:
            self.closed_form.prepare()

    def _judge(self, student: Architecture) -> Evaluation:
        return judge(
            student,
            self._train,
            space=self.space,
            seed=self.seed,
            fidelity=self.fidelity,
            teacher_parameters=self.teacher.parameters,
            refuse=self.refuse,
            fails_by=(DivergedError,),
        )

    def _train(self, student: Architecture, cost: Cost, seed: int) -> Evaluation:
        network = self.space.build(student, inherit=self.start != "fresh", importance=self.importance, seed=seed)
        if self.closed_form is not None:
            self.closed_form(network.to(self.device), student, seed=seed)
        result = fit(
            network,
            self.training,
            self.recipe,
            teacher=self.teacher,
            seed=seed,
            device=self.device,
            precision=self.precision,
            subset=self.subset,
        )
        if result.diverged:
            raise DivergedError(f"diverged: {result.reason}")
        mean, std = self.training.mean, self.training.std
        logits = predict(
            network, self.validation.images, mean=mean, std=std, device=self.device, precision=self.precision
        )
        share, loss = accuracy_of(logits, self.validation.labels)
        if not math.isfinite(loss):
            raise DivergedError(f"diverged: the validation loss is {loss} after {result.steps} steps")
        timing = None if self.timings is None else self.timings.of(student.fingerprint, network)
        return Evaluation(
            fingerprint=student.fingerprint,
            architecture=student.to_json(),
            status=Status.OK,
            reason="",
            accuracy=share,
            loss=loss,
            parameters=cost.parameters,
            macs=cost.macs,
            seconds=0.0,
            seed=seed,
            fidelity=self.fidelity,
            agreement=agreement(logits, self.teacher.logits(self.validation)),
            latency_ms=timing.median_ms if timing else None,
            latency_iqr_ms=timing.iqr_ms if timing else None,
            latency_device=timing.device if timing else None,
            size_mb=cost.size_mb,
        )


def distillation(
    space: SearchSpace,
    teacher: Teacher,
    training: TrainingData,
    *,
    steps: int = 100,
    objective: str = "kd",
    recipe: Recipe | None = None,
    subset: int | None = None,
    validation_subset: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    precision: Wish = "auto",
    start: str = "inherited",
    importance: str = "l1",
    closed_form_options: Mapping[str, Any] | None = None,
    timings: Timings | None = None,
    refuse: Refuse | None = None,
) -> Distillation:
    """An evaluator that distils every student for a short while and reads its accuracy on the validation split.

    Args:
        space: builds the students.
        teacher: one for the whole search; its outputs on the views are computed at the first call and kept.
        training: train and validation images.
        steps: optimiser steps, where no recipe is given.
        objective: a name of `OBJECTIVES` or a weighted sum of them, where no recipe is given.
        recipe: instead of `quick_recipe(steps=steps, objective=objective)`.
        subset: training images to use, drawn by `seed`; by default as many as the recipe's steps can show once.
        validation_subset: validation images to use, drawn by `seed`; all by default.
        seed: of the run; every student's own seed derives from it and the student's fingerprint.
        device: where students are trained.
        precision: "auto", "fp32", "bf16", or a decision of `n2n.distill.probe`.
        start: "inherited": with the teacher's weights; "refit": solved in closed form from these, so that no step may
            be needed at all; "fresh".
        importance: which of the teacher's channels they inherit.
        closed_form_options: more arguments of `closed_form`, e.g. `{"images": 512}`, where students are refitted.
        timings: times the students that it does not know yet; where it is given, latencies are measured, too.
        refuse: a reason not to train a student of a given cost, e.g. `budget.refusal`; it becomes INVALID. A student
            that is not smaller than the teacher is refused always.

    Raises:
        ValueError: a subset below one image, an unknown start, or a space whose students cannot be refitted.
        StageError: the objective looks at feature maps, and the teacher has none.
    """
    if start not in STARTS:
        raise ValueError(f"start: expected one of {', '.join(STARTS)}, found {start!r}")
    chosen = recipe if recipe is not None else quick_recipe(steps=steps, objective=objective)
    check_objective(chosen.objective, teacher, chosen.layers)
    if start == "refit":
        chosen = chosen if recipe is not None else gentle(chosen)
        chosen = replace(chosen, reestimate=0)  # the closed form has set the statistics for its weights
    asked = _draw(len(training.train), subset, seed, "subset")
    if subset is None and chosen.steps is not None:
        subset = max(1, max(chosen.steps, chosen.reestimate) * chosen.batch_size)
    indices = _draw(len(training.train), subset, seed, "subset")
    held = _draw(len(training.validation), validation_subset, seed, "validation_subset")
    validation = training.validation
    if held is not None:
        validation = Split(validation.images[held], validation.labels[held], validation.name)
    solver = None
    if start == "refit":
        options = {"importance": importance, "subset": asked, "seed": seed, "device": device}
        solver = closed_form(space, training, **{**options, **(closed_form_options or {})})
    return Distillation(
        space=space,
        teacher=teacher,
        training=training,
        recipe=chosen,
        subset=indices,
        validation=validation,
        seed=seed,
        device=device,
        precision=precision,
        start=start,
        importance=importance,
        closed_form=solver,
        timings=timings,
        refuse=refuse,
    )


def _draw(available: int, wanted: int | None, seed: int, name: str) -> Tensor | None:
    """`wanted` of `available` indices [m] in ascending order, or None for all of them."""
    if wanted is not None and wanted < 1:
        raise ValueError(f"distillation: {name} must be 1 or more images, or None for all; got {wanted}")
    if wanted is None or wanted >= available:
        return None
    order = torch.randperm(available, generator=torch.Generator().manual_seed(seed))
    return order[:wanted].sort().values
