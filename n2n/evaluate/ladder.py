"""A ladder of fidelities behind the one call that judges students: cheap judgements choose who gets a dear one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import final

import numpy as np

from n2n.evaluate.base import Evaluate, Evaluation, Status
from n2n.evaluate.cached import Keeping
from n2n.evaluate.judgements import Judgement
from search_spaces.base import Architecture

Rank = Callable[[Evaluation], float]
"""What promotes a student: higher is better, e.g. the reward. It looks at `Evaluation.expected`."""
FIRST = 6
"""Students that climb the whole ladder, whatever the cheap rungs say of them: the corrections are learned from them."""
DOUBT = 2.0
"""Residual standard deviations that a prediction is given before its student is held to be off the front."""


def signal(evaluation: Evaluation | Judgement) -> float | None:
    """What a rung says of a student: agreement with the teacher where there is one, else accuracy, else score."""
    for value in (evaluation.agreement, evaluation.accuracy, evaluation.score):
        if value is not None and math.isfinite(value):
            return value
    return None


@dataclass(frozen=True)
class Correction:
    """The line `accuracy = intercept + slope * signal`, slope at least 0, from one rung to the last.

    `residual` is the standard deviation of what it misses, infinite where fewer than four students were seen.
    """

    intercept: float
    slope: float
    residual: float

    def __call__(self, value: float) -> float:
        """The accuracy to expect, in [0, 1]."""
        return min(1.0, max(0.0, self.intercept + self.slope * value))


def correction(signals: Sequence[float], accuracies: Sequence[float]) -> Correction | None:
    """Least squares of the last rung's accuracies on a rung's signals; None without a pair.

    A falling line, or signals that are all alike, say nothing: the mean accuracy stands for everybody then.
    """
    if not signals:
        return None
    x, y = np.asarray(signals, dtype=float), np.asarray(accuracies, dtype=float)
    spread = float(((x - x.mean()) ** 2).sum())
    slope = max(0.0, float(((x - x.mean()) * (y - y.mean())).sum()) / spread) if spread > 0 else 0.0
    intercept = float(y.mean() - slope * x.mean())
    missed = y - intercept - slope * x
    residual = math.sqrt(float((missed**2).sum()) / (len(x) - 2)) if len(x) > 3 else math.inf
    return Correction(intercept, slope, residual)


@final
@dataclass
class Climbs:
    """What the students of a run have shown on the rungs so far: what corrections are learned from.

    Attributes:
        signals: by rung, then by student.
        top: the evaluations on the last rung.
    """

    signals: dict[str, dict[str, float]] = field(default_factory=dict)
    top: dict[str, Evaluation] = field(default_factory=dict)

    def enter(self, rung: str, one: Evaluation, *, last: bool) -> None:
        """Keeps a judgement, where it says something."""
        value = signal(one)
        if one.status is Status.OK and value is not None:
            self.signals.setdefault(rung, {})[one.fingerprint] = value
            if last:
                self.top[one.fingerprint] = one

    def line(self, rung: str) -> Correction | None:
        """The correction of a rung, from the students that were on it and on the last."""
        seen = self.signals.get(rung, {})
        both = [key for key in self.top if key in seen]
        return correction([seen[key] for key in both], [self.top[key].accuracy or 0.0 for key in both])


@final
@dataclass(frozen=True)
class Ladder:
    """See `ladder`."""

    rungs: Mapping[str, Evaluate]
    promote: float
    rank: Rank
    first: int
    climbs: Climbs
    expects: Mapping[str, Correction]

    def __call__(self, students: Sequence[Architecture]) -> list[Evaluation]:
        """One evaluation each, in the same order: on the highest rung that the student reached."""
        reached: dict[str, Evaluation] = {}
        climbing = {one.fingerprint: one for one in students}
        unseen = [key for key in climbing if key not in self.climbs.top]
        forced = set(unseen[: max(0, self.first - len(self.climbs.top))])
        last = list(self.rungs)[-1]
        for name, evaluate in self.rungs.items():
            found = evaluate(list(climbing.values()))
            judged = [_beside(one, reached.get(one.fingerprint), rung=name, settled=name == last) for one in found]
            for one in judged:
                self.climbs.enter(name, one, last=name == last)
                reached[one.fingerprint] = one  # a student that fails on a dear rung has failed
            fine = [one for one in judged if one.status is Status.OK]
            chosen = forced | self._chosen(name, [one for one in fine if one.fingerprint not in forced])
            climbing = {one.fingerprint: climbing[one.fingerprint] for one in fine if one.fingerprint in chosen}
            if not climbing:
                break
        return [self._estimated(reached[student.fingerprint]) for student in students]

    def known(self, students: Sequence[Architecture]) -> list[Evaluation]:
        """The highest evaluations of those students that were judged, e.g. before an interrupt."""
        found = []
        for student in students:
            highest: Evaluation | None = None
            for name, evaluate in self.rungs.items():
                kept: list[Evaluation] = evaluate.known([student]) if isinstance(evaluate, Keeping) else []
                if kept:
                    highest = _beside(kept[0], highest, rung=name, settled=name == list(self.rungs)[-1])
            if highest is not None:
                found.append(self._estimated(highest))
        return found

    def _chosen(self, name: str, judged: Sequence[Evaluation]) -> set[str]:
        """The better fraction, without those that cannot reach the front any more."""
        line = self._line(name)
        ranked = sorted(judged, key=lambda one: (self.rank(self._estimated(one)), signal(one) or 0.0), reverse=True)
        best = ranked[: math.ceil(self.promote * len(ranked))]
        return {one.fingerprint for one in best if not self._dominated(one, line)}

    def _line(self, rung: str) -> Correction | None:
        return self.expects[rung] if self.expects else self.climbs.line(rung)

    def _dominated(self, one: Evaluation, line: Correction | None) -> bool:
        """Whether a student that costs no more is better by more than the prediction can miss."""
        value = signal(one)
        if line is None or value is None or not math.isfinite(line.residual):
            return False
        hoped = line(value) + DOUBT * line.residual
        return any(
            (self._estimated(top).expected or 0.0) > hoped and top.parameters <= one.parameters and top.macs <= one.macs
            for top in self.climbs.top.values()
        )

    def _estimated(self, one: Evaluation) -> Evaluation:
        """With the accuracy that the last rung found, or would find by the correction known by now."""
        value = signal(one)
        if one.status is not Status.OK or value is None:
            return one
        if one.settled and not self.expects:
            return replace(one, estimate=one.accuracy)
        line = self._line(one.rung)
        return replace(one, estimate=None if line is None else line(value))


def _beside(one: Evaluation, lower: Evaluation | None, *, rung: str, settled: bool) -> Evaluation:
    """The judgement of a rung, with the seconds of those below it."""
    before = 0.0 if lower is None else lower.seconds
    return replace(one, rung=rung, settled=settled, seconds=before + one.seconds)


def ladder(
    rungs: Mapping[str, Evaluate],
    *,
    promote: float = 0.4,
    rank: Rank,
    first: int = FIRST,
    climbs: Climbs | None = None,
    expects: Mapping[str, Correction] | None = None,
) -> Ladder:
    """Judges every student on the first rung and the better ones on the next, by successive halving within a batch.

    Every evaluation names the rung that its student reached and carries an `estimate`, the accuracy on the last rung:
    measured there, or predicted by a line that was fitted to the students which have been on both rungs so far. That
    makes rewards from different rungs comparable. The first students climb the whole ladder, so that the line is not
    fitted to the best alone. A student that cannot reach the front any more, its prediction given two standard
    deviations of what the line misses, is not promoted.

    Args:
        rungs: evaluators by name, cheapest first; the last gives accuracies.
        promote: the share of a batch that climbs from each rung, in (0, 1]; one student at least.
        rank: which students are better.
        first: as many students climb the whole ladder before anybody is held back.
        expects: by rung, the line from what it says of a student to the accuracy after a long distillation, as a
            calibration has found it. Then nothing is learned on the way, and `estimate` is that accuracy on every rung,
            the last included.
        climbs: what earlier students of the same teacher and data have shown on these rungs, e.g. in another space.

    Raises:
        ValueError: no rung, a share out of its range, or expectations of other rungs.
    """
    if not rungs:
        raise ValueError("a ladder needs one rung at least, e.g. {'refit:0': distillation(...)}")
    if not 0 < promote <= 1:
        raise ValueError(f"ladder: promote is the share of students that climbs, in (0, 1]; got {promote}")
    if expects and set(expects) != set(rungs):
        raise ValueError(f"ladder: expected a line for each of {', '.join(rungs)}; found them for {', '.join(expects)}")
    known = climbs if climbs is not None else Climbs()
    return Ladder(rungs, promote, rank, 0 if expects else first, known, expects or {})
