"""An evaluator that trains nothing: students are judged by a function of their architecture. For tests and dry runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import final

from n2n.evaluate.base import Evaluation, Status, evaluation_seed
from search_spaces.base import Architecture, SearchSpace

Score = Callable[[Architecture], float]


@final
@dataclass
class Fake:
    """See `fake`; `batches` lists the fingerprints of every call so far."""

    space: SearchSpace
    score: Score
    seed: int = 0
    batches: list[tuple[str, ...]] = field(default_factory=list)

    def __call__(self, students: Sequence[Architecture]) -> list[Evaluation]:
        """One OK evaluation each, in the same order."""
        self.batches.append(tuple(student.fingerprint for student in students))
        return [self._judge(student) for student in students]

    def _judge(self, student: Architecture) -> Evaluation:
        value = float(self.score(student))
        cost = self.space.cost(student)
        return Evaluation(
            fingerprint=student.fingerprint,
            architecture=student.to_json(),
            status=Status.OK,
            reason="",
            accuracy=value,
            loss=1 - value,
            parameters=cost.parameters,
            macs=cost.macs,
            seconds=0.0,
            seed=evaluation_seed(self.seed, student.fingerprint),
            fidelity="fake",
            size_mb=cost.size_mb,
        )


def fake(space: SearchSpace, score: Score, *, seed: int = 0) -> Fake:
    """Judges by `score(architecture)`, which must lie in [0, 1] and is reported as the accuracy."""
    return Fake(space, score, seed)
