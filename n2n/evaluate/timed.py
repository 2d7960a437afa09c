"""A judge without training that also times its students, where a budget bounds the latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch

from n2n.evaluate.base import Evaluation, Status
from n2n.evaluate.scoring import Scoring
from n2n.networks.latency import Timings, device_name
from search_spaces.base import Architecture


@final
@dataclass(frozen=True)
class Timed:
    """See `timed`."""

    scoring: Scoring
    timings: Timings

    @property
    def fidelity(self) -> str:
        """How students are judged, in words."""
        return self.scoring.fidelity

    @property
    def images_shown(self) -> int:
        """As of the scoring."""
        return self.scoring.images_shown

    @property
    def recipe_key(self) -> str:
        """As of the scoring; one that was not timed does not stand in for one that was."""
        return f"{self.scoring.recipe_key} timed"

    @property
    def machine_key(self) -> str:
        """Latencies are those of one kind of hardware."""
        return f"{self.scoring.machine_key} {device_name(torch.device(self.scoring.device))}"

    def prepare(self) -> None:
        """As of the scoring."""
        self.scoring.prepare()

    def __call__(self, students: Sequence[Architecture]) -> list[Evaluation]:
        """One evaluation each, in the same order, failures included."""
        return [self._timed(student, found) for student, found in zip(students, self.scoring(students), strict=True)]

    def _timed(self, student: Architecture, found: Evaluation) -> Evaluation:
        if found.status is not Status.OK:
            return found
        scoring = self.scoring
        network = scoring.space.build(student, inherit=False, seed=found.seed).to(scoring.device)
        timing = self.timings.of(student.fingerprint, network)
        return replace(found, latency_ms=timing.median_ms, latency_iqr_ms=timing.iqr_ms, latency_device=timing.device)


def timed(scoring: Scoring, timings: Timings) -> Timed:
    """A scoring whose evaluations have a latency: of one example, by `timings`, which times no student twice.

    Args:
        scoring: what scores the students; it does so on its device.
        timings: on inputs on that device.
    """
    return Timed(scoring, timings)
