"""What judging a student leaves behind, and the one call behind which every way of judging stands."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from search_spaces.base import Architecture, Cost

PREFILTER = "prefilter:"
"""How the rung of a student begins that a prefilter has scored and held back; the score's name follows."""


class Status(StrEnum):
    """How judging a student ended."""

    OK = "ok"
    """It was judged; `accuracy` or `score` is a number."""
    INVALID = "invalid"
    """It was refused without being trained; `reason` says why."""
    FAILED = "failed"
    """It does not run, diverged or ran out of memory; `reason` says which."""


@dataclass(frozen=True)
class Evaluation:
    """The recorded outcome of judging one student.

    Attributes:
        fingerprint: of the architecture.
        architecture: its JSON form.
        status: OK, INVALID or FAILED.
        reason: why it is not OK; empty where it is.
        accuracy: on the validation split, 0 to 1; None where the status is not OK, or where only a score was taken.
        loss: mean cross-entropy on the validation split; None where there is no accuracy.
        parameters: of the student.
        macs: multiply-accumulates of the student for one example.
        seconds: wall time of the judgement, on all rungs that the student was on.
        seed: that everything random in it derived from.
        fidelity: how it was judged, in words; two evaluations compare only at equal fidelity.
        latency_ms: median for one example, where it was measured.
        latency_iqr_ms: interquartile range of the same measure.
        latency_device: what it was measured on.
        size_mb: parameters and buffers in MB, where it is known.
        agreement: of its logits with the teacher's on the validation images, at most 1; see `distill.accuracy`.
        score: training-free, higher is better, where the student was scored.
        rung: of a ladder of fidelities, the one that the student reached; empty where there is no ladder.
        estimate: the accuracy, 0 to 1, that the last rung of the ladder would find: measured there, or predicted from
            the rung that the student reached; after a calibration, that of the long distillation. None where there is
            no ladder.
        settled: False below the last rung of a ladder.
    """

    fingerprint: str
    architecture: str
    status: Status
    reason: str
    accuracy: float | None
    loss: float | None
    parameters: int
    macs: int
    seconds: float
    seed: int
    fidelity: str
    latency_ms: float | None = None
    latency_iqr_ms: float | None = None
    latency_device: str | None = None
    size_mb: float | None = None
    agreement: float | None = None
    score: float | None = None
    rung: str = ""
    estimate: float | None = None
    settled: bool = True

    def __post_init__(self) -> None:
        """Refuses a record that contradicts itself.

        Raises:
            ValueError: OK without an accuracy in [0, 1] or a score, or not OK without a reason or with an accuracy.
        """
        ok = self.status is Status.OK
        for name, value in (("accuracy", self.accuracy), ("estimate", self.estimate)):
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"student {self.fingerprint}: expected an {name} in [0, 1]; found {value}")
        if ok and self.accuracy is None and (self.score is None or not math.isfinite(self.score)):
            raise ValueError(
                f"student {self.fingerprint}: OK needs an accuracy in [0, 1] or a finite score; found"
                f" {self.accuracy} and {self.score}"
            )
        if not ok and (self.accuracy is not None or not self.reason):
            raise ValueError(
                f"student {self.fingerprint}: {self.status} needs a reason and no accuracy; found reason"
                f" {self.reason!r} and accuracy {self.accuracy}"
            )

    @property
    def filtered(self) -> bool:
        """Whether a prefilter held the student back: it was scored, and its accuracy is no more than expected."""
        return self.rung.startswith(PREFILTER)

    @property
    def expected(self) -> float | None:
        """The accuracy that rewards and fronts are made of: comparable between the rungs of one ladder."""
        return self.accuracy if self.estimate is None else self.estimate


Evaluate = Callable[[Sequence[Architecture]], list[Evaluation]]
"""Judges a batch of students: one evaluation each, in the same order, failures included."""


def evaluation_seed(run_seed: int, fingerprint: str) -> int:
    """The seed of one student's judgement, in [0, 2^32); order and workers do not matter."""
    digest = hashlib.sha256(f"{run_seed}:{fingerprint}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def not_ok(
    status: Status,
    reason: str,
    architecture: Architecture,
    cost: Cost,
    *,
    seconds: float,
    seed: int,
    fidelity: str,
) -> Evaluation:
    """The record of a student that could not be judged."""
    return Evaluation(
        fingerprint=architecture.fingerprint,
        architecture=architecture.to_json(),
        status=status,
        reason=reason,
        accuracy=None,
        loss=None,
        parameters=cost.parameters,
        macs=cost.macs,
        seconds=seconds,
        seed=seed,
        fidelity=fidelity,
        size_mb=cost.size_mb,
    )
