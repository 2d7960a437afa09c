"""Our own score of students that inherit: what they say already of what their teacher says, and what they can learn."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from n2n.distill.accuracy import agreement
from n2n.scores.base import Probe, ScoreError, borrowed, finite
from n2n.scores.live_capacity import live_capacity


def taught_capacity(network: nn.Module, probe: Probe) -> float:
    """The agreement with the teacher after the closed form, times a root of the capacity; ours, not published.

        s = A c^(1/4)

    `c` is `live_capacity`, `A` the agreement of the student's logits with the teacher's on the probe's images (at most
    1, see `n2n.distill.accuracy.agreement`) once `probe.solve` has fitted its layers to the teacher's values: no label,
    no gradient step. A says what a student knows, c what it can still learn: the closed form underrates narrow and deep
    students, which training mends. A negative A stands alone. Without `probe.solve` there are no weights worth a
    look, A = 1, and the order is that of `live_capacity`. Of a handful of forms the one that ordered two panels of
    students best (`docs/scores.md`).

    Raises:
        ScoreError: no layer is live, the outputs are no tensor, `probe.solve` without a teacher, or no finite value.
        RuntimeError, ValueError: student or teacher does not run on the probe's images.
    """
    capacity = math.sqrt(math.sqrt(live_capacity(network, probe)))
    if probe.solve is None:
        return capacity
    if probe.teacher is None:
        raise ScoreError(
            "taught_capacity: expected a teacher whose values students are solved for, found none; give the probe one:"
            " Probe(teacher=)"
        )
    with borrowed(network, probe.seed) as student, borrowed(probe.teacher, probe.seed, parameters=False) as teacher:
        probe.solve(student)
        student.eval()
        found = agreement(_logits(student, probe.images), _logits(teacher, probe.images))
    finite(
        found, "taught_capacity", "look at the weights of student and teacher, and that there are two images or more"
    )
    return found * capacity if found > 0 else found


def _logits(network: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        logits = network(images)
    if not isinstance(logits, Tensor):
        raise ScoreError(f"taught_capacity: expected logits [B, K], found {type(logits).__name__}")
    return logits.flatten(1)
