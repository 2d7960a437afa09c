"""Scoring many students to judge few: the best by a training-free score, and some drawn by chance.

Choosing by a score and learning from the chosen alone would follow another gradient: that of the students that the
score likes. `Prefilter.draws` therefore keeps with what chance each student of a batch was to be judged, and what was
expected of it, from which `n2n.search.filtered` makes rewards that are right on average.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self, final

import numpy as np

from n2n.evaluate.base import PREFILTER, Evaluate, Evaluation, Status, evaluation_seed
from n2n.evaluate.cached import Keeping, Refuse
from n2n.evaluate.ladder import Climbs, Correction, Rank
from search_spaces.base import Architecture

WARM = 6
"""Students that are judged before any is held back: from them it is learned what a score lets expect."""


@dataclass(frozen=True)
class Draw:
    """What was known of a student before it was judged, or held back.

    Attributes:
        chance: with which it was to be judged, in (0, 1].
        expected: its score, and as `estimate` the accuracy that the batches before let expect of it.
    """

    chance: float
    expected: Evaluation


@final
class Prefilter:
    """See `prefilter`.

    Attributes:
        ratio: students that are scored for each one that is judged.
        explore: of the judged of a batch, those drawn by chance.
        draws: of the last batch, by student; those that were known before, or refused, are not in it.
    """

    def __init__(
        self,
        score: Evaluate,
        judge: Evaluate,
        *,
        name: str,
        rank: Rank,
        ratio: int,
        explore: int,
        seed: int,
        climbs: Climbs,
        refuse: Refuse | None = None,
    ) -> None:
        self._score, self._judge, self._name, self._rank = score, judge, f"{PREFILTER}{name}", rank
        self._seed, self._climbs, self._refuse = seed, climbs, refuse
        self.ratio, self.explore = ratio, explore
        self._judged: dict[str, Evaluation] = {}
        self.draws: Mapping[str, Draw] = {}

    def many(self, students: int) -> int:
        """How many students to hand in, so that so many of them are judged."""
        return students if self._line() is None else self.ratio * students

    def __call__(self, students: Sequence[Architecture]) -> list[Evaluation]:
        """One evaluation each, in the same order: judged, or held back with a score and an estimate.

        Of the students that nobody has judged yet one in `ratio` is: the best by `rank` of what is expected, where that
        is the same by score, and `explore` of the others by chance. All are while too few were judged to expect
        anything.
        """
        line = self._line()  # of the batches before: what is expected of a student must not depend on this draw
        alike = {one.fingerprint: one for one in students}
        found = {key: self._judged[key] for key in alike if key in self._judged}
        if self._refuse is not None:
            records = {key: self._refuse(one) for key, one in alike.items() if key not in found}
            found.update({key: record for key, record in records.items() if record is not None})
        scored = self._scored([one for key, one in alike.items() if key not in found], line)
        for one in scored:
            if one.status is not Status.OK:  # a refusal is none of the score's: it is as without a prefilter
                found[one.fingerprint] = replace(one, rung="") if one.status is Status.INVALID else one
        fine = sorted((one for one in scored if one.status is Status.OK), key=self._order, reverse=True)
        keep = len(fine) if line is None else -(-len(students) // self.ratio)
        self.draws = self._drawn(fine, keep)
        chosen = self._chosen(keep)
        for one in self._judge([alike[key] for key in chosen]) if chosen else []:
            found[one.fingerprint] = self._judged[one.fingerprint] = one
            self._climbs.enter(self._name, self.draws[one.fingerprint].expected, last=False)
            self._climbs.enter("", replace(one, accuracy=one.expected), last=True)
        return [found.get(key) or self.draws[key].expected for key in (one.fingerprint for one in students)]

    def known(self, students: Sequence[Architecture]) -> list[Evaluation]:
        """The evaluations of those students that were judged, e.g. before an interrupt."""
        return self._judge.known(students) if isinstance(self._judge, Keeping) else []

    def refusing(self, refuse: Refuse) -> Self:
        """The same prefilter, which asks `refuse` before it has a student scored."""
        self._refuse = refuse
        return self

    def _line(self) -> Correction | None:
        """From a score to the accuracy to expect; None where too few students were judged."""
        return self._climbs.line(self._name) if len(self._climbs.top) >= WARM else None

    def _scored(self, students: Sequence[Architecture], line: Correction | None) -> list[Evaluation]:
        found = self._score(students) if students else []
        expected = [None if line is None or one.score is None else line(one.score) for one in found]
        return [
            replace(one, rung=self._name, settled=False, estimate=estimate)
            for one, estimate in zip(found, expected, strict=True)
        ]

    def _order(self, one: Evaluation) -> tuple[float, float]:
        return self._rank(one), one.score or 0.0

    def _drawn(self, fine: Sequence[Evaluation], keep: int) -> dict[str, Draw]:
        """With what chance each is judged: the best with certainty, the others with one that is the same for all."""
        if keep >= len(fine):
            return {one.fingerprint: Draw(1.0, one) for one in fine}
        explore = min(self.explore, keep)
        certain, others = fine[: keep - explore], fine[keep - explore :]
        return {
            **{one.fingerprint: Draw(1.0, one) for one in certain},
            **{one.fingerprint: Draw(explore / len(others), one) for one in others},
        }

    def _chosen(self, keep: int) -> list[str]:
        """Who is judged, best first; chance follows from the seed of the run and the students it chooses among."""
        certain = [key for key, draw in self.draws.items() if draw.chance == 1.0]
        others = [key for key, draw in self.draws.items() if draw.chance < 1.0]
        if not others or keep == len(certain):
            return certain
        rng = np.random.default_rng(evaluation_seed(self._seed, " ".join(sorted(self.draws))))
        lucky = rng.choice(len(others), size=keep - len(certain), replace=False)
        return certain + [others[index] for index in sorted(lucky.tolist())]


def prefilter(
    score: Evaluate,
    judge: Evaluate,
    *,
    name: str,
    rank: Rank,
    ratio: int = 8,
    explore: int = 1,
    seed: int = 0,
    climbs: Climbs | None = None,
) -> Prefilter:
    """Scores every student of a batch, and has one in `ratio` judged.

    What a score lets expect is a line through those that were judged in the batches before (see `Climbs`); the first
    six students are judged without a choice. Those that are held back are OK, with their score, that expectation as
    `estimate`, and `filtered`. A student that cannot be scored is recorded as such, and not judged.

    Args:
        score: a training-free evaluator, e.g. `scoring(...)`.
        judge: gives accuracies; it is best one that remembers whom it has judged.
        name: of the score.
        rank: which students are better, e.g. the reward; it looks at `Evaluation.expected`.
        ratio: students that are scored for each one that is judged, 2 or more.
        explore: of the judged of a batch so many are drawn by chance from all that are not the best, so that everybody
            has a chance; 0 judges the best alone, and then no rewards can be made that are right on average.
        seed: of these draws.
        climbs: what the students of an earlier stage have shown.

    Raises:
        ValueError: a ratio below 2, or an `explore` below 0.
    """
    if ratio < 2 or explore < 0:
        raise ValueError(f"prefilter: expected a ratio of 2 or more and explore >= 0; found {ratio} and {explore}")
    known = climbs if climbs is not None else Climbs()
    return Prefilter(score, judge, name=name, rank=rank, ratio=ratio, explore=explore, seed=seed, climbs=known)
