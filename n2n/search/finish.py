"""The end of a search: choose among the judged, distil at length, and look at the test split once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor, nn

from n2n.data.base import Data, Split, TrainingData
from n2n.distill.accuracy import accuracy
from n2n.distill.fit import FitResult, check_objective, fit
from n2n.distill.loop import Progress
from n2n.distill.precision import Wish
from n2n.distill.recipe import Recipe, full_recipe, gentle
from n2n.distill.teacher import Teacher
from n2n.evaluate.base import Evaluation, Status
from n2n.networks import Latency, latency, macs, parameters, size_mb
from n2n.networks.depth import Layers
from n2n.reward import Budget
from n2n.search.front import front
from n2n.search.progress import Display


@dataclass(frozen=True)
class Figures:
    """What is measured of a finished network, teacher or student.

    Accuracies are in 0..1; `macs` are for one example; latency is the median and interquartile range of one example in
    ms, on `threads` threads of `device`; `size_mb` is parameters and buffers in MB.
    """

    validation_accuracy: float
    test_accuracy: float
    parameters: int
    macs: int
    latency_ms: float
    latency_iqr_ms: float
    threads: int
    size_mb: float
    device: str

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Choice:
    """A student chosen for the long distillation."""

    evaluation: Evaluation
    reward: float
    violations: tuple[str, ...]


def choose(
    evaluations: Sequence[Evaluation], budget: Budget, reward: Callable[[Evaluation], float], finalists: int
) -> tuple[Choice, ...]:
    """The best students by reward among the front of those that meet the budget.

    Where students climbed a ladder, those that were measured on its last rung come before those whose accuracy was
    predicted. Where none meets the budget, the one with the fewest parameters on the front stands in, its violations
    named: it comes closest on the quantity that every budget bounds.
    """
    judged = [one for one in evaluations if one.status is Status.OK]
    meeting = [one for one in judged if not budget.violations(one)]
    if not meeting:
        return tuple(Choice(one, reward(one), tuple(budget.violations(one))) for one in front(judged)[:1])
    meeting = [one for one in meeting if one.settled] or meeting
    unique = {one.fingerprint: one for one in (*front(meeting), *front(meeting, by="macs"))}
    ranked = sorted(unique.values(), key=lambda one: (-reward(one), one.parameters or 0, one.fingerprint))
    return tuple(Choice(one, reward(one), ()) for one in ranked[:finalists])


def distill_student(
    student: nn.Module,
    teacher: Teacher,
    training: TrainingData,
    *,
    epochs: float = 3.0,
    objective: str = "kd",
    layers: Layers = (),
    ema: float | None = None,
    start: str = "inherited",
    seed: int = 0,
    device: str = "cpu",
    precision: Wish = "auto",
    progress: Callable[[int, int, float], None] | None = None,
    deadline: float | None = None,
) -> FitResult:
    """Distils a student at length, in place: all training images, the teacher's outputs on the same view.

    After `deadline`, a `time.monotonic()` value, no step is begun; the result's `reason` says so. A student that starts
    refitted is trained with smaller steps, and is given back as it came where training makes it worse on the validation
    images; the `reason` says so, too. `objective`, `layers` and `ema` are those of `n2n.distill.recipe.Recipe`.

    Raises:
        ObjectiveError: the objective cannot be read, misses something, or looks at none of the layers.
        StageError: a network does not have the maps that the objective looks at.
        ValueError: a value out of its range, or a student that does not give logits.
    """
    check_objective(objective, teacher, layers)
    mean, std = training.mean, training.std

    def validated() -> float:
        return accuracy(student, training.validation, mean=mean, std=std, device=device, precision=precision)[0]

    solved: dict[str, Tensor] = {}
    before = 0.0
    if start == "refit":
        student.to(device)
        solved = {key: value.clone() for key, value in student.state_dict().items()}
        before = validated()
    found = fit(
        student,
        training,
        replace(long_recipe(epochs, objective, start), layers=layers, ema=ema),
        teacher=teacher,
        seed=seed,
        device=device,
        precision=precision,
        progress=progress,
        deadline=deadline,
    )
    if not solved or (not found.diverged and (after := validated()) >= before):
        return found
    now = "nothing that can be measured" if found.diverged else f"{after:.2%}"
    student.load_state_dict(solved)
    undone = f"{UNDONE}: it led from a validation accuracy of {before:.2%} to {now}; distil longer to gain by it"
    return replace(found, diverged=False, reason=f"{found.reason}; {undone}" if found.reason else undone)


UNDONE = "it was undone"
"""How the reason of a distillation begins, or goes on, that made a refitted student worse."""


def long_recipe(epochs: float, objective: str, start: str) -> Recipe:
    """How chosen students are distilled, by what they start from."""
    recipe = full_recipe(epochs=epochs, objective=objective)
    return gentle(recipe) if start == "refit" else recipe


def measure(
    network: nn.Module,
    example_inputs: Tensor,
    data: Data,
    *,
    device: str = "cpu",
    precision: Wish = "auto",
    timing: Latency | None = None,
) -> Figures:
    """Measures a finished network on the validation and the test split; nothing of it is changed.

    Args:
        example_inputs: [1, ...], prepared; MACs and latency are for it.
        timing: its latency, where it is known already.
    """
    training = data.training

    def on(split: Split) -> float:
        right, _ = accuracy(network, split, mean=training.mean, std=training.std, device=device, precision=precision)
        return right

    one = example_inputs[:1].to(device)
    timing = timing or latency(network, one)
    return Figures(
        validation_accuracy=on(training.validation),
        test_accuracy=on(data.test),
        parameters=parameters(network),
        macs=macs(network, one),
        latency_ms=timing.median_ms,
        latency_iqr_ms=timing.iqr_ms,
        threads=timing.threads,
        size_mb=size_mb(network),
        device=timing.device,
    )


INTERRUPTED = "interrupted"
"""How the reason of a training begins that the user cut short."""


def interruptible(train: Callable[[Progress], FitResult], rank: int, display: Display) -> FitResult:
    """Trains finalist `rank`, its progress shown; an interrupt ends the training, and what is trained by then counts.

    Args:
        train: trains, and tells the progress that it is given.
        rank: of the finalist, for the display.
        display: shows how it goes.
    """
    steps, begun = 0, time.monotonic()

    def shown(step: int, total: int, loss: float) -> None:
        nonlocal steps
        steps = step
        if step == 1:
            display.begin(f"student {rank}", total)
        display.update(step, f"loss {loss:.3f}")

    try:
        return train(shown)
    except KeyboardInterrupt:
        display.note(f"interrupted: student {rank} is finished as it is; interrupt again to leave it out")
        reason = f"{INTERRUPTED} after {steps} steps"
        return FitResult(steps, time.monotonic() - begun, math.nan, diverged=False, reason=reason)
