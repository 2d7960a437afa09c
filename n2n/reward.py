"""From an evaluation to the number that a policy learns from: pure functions, and one record that applies them.

Ashok, Rhinehart, Beainy, Kitani: "N2N Learning", ICLR 2018.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from n2n.evaluate.base import Evaluation, Status
from search_spaces.base import Cost

DEGENERATE: Final = -1.0
"""The reward of a student that could not be judged or is not smaller than the teacher."""

_SUFFIXES = {"k": 1e3, "M": 1e6, "G": 1e9}


def compression(parameters: float, teacher_parameters: float) -> float:
    """`C = 1 - S/T`: 0 for the teacher's size, towards 1 for nothing, negative for a student larger than the teacher.

    Raises:
        ValueError: the teacher has no parameters.
    """
    if teacher_parameters <= 0:
        raise ValueError(f"a teacher has parameters; got {teacher_parameters}")
    return 1 - parameters / teacher_parameters


def n2n_reward(accuracy: float, parameters: float, *, teacher_accuracy: float, teacher_parameters: float) -> float:
    """`R = C (2 - C) A / A_T`, or -1 where the student is not smaller than the teacher.

    In {-1} and [0, 1/A_T]. At the teacher's accuracy it is .75 at 2x, .96 at 5x and .99 at 10x compression; halving the
    accuracy halves it.

    Raises:
        ValueError: the teacher's accuracy is not above 0.
    """
    if teacher_accuracy <= 0:
        raise ValueError(f"the teacher's accuracy must be above 0; got {teacher_accuracy}: is the teacher trained?")
    c = compression(parameters, teacher_parameters)
    if c <= 0:
        return DEGENERATE
    return c * (2 - c) * accuracy / teacher_accuracy


SHORTFALL: Final = 0.35
"""Of what a student lacks after a quick judgement, so much is expected to be lacking after a long distillation.

Chosen on the panels of `scripts/benchmarks/evaluation.py`: on Fashion-MNIST and on CIFAR-10 the rewards order students
best with 0.2 to 0.5, and far better than with 1 (`scripts/benchmarks/evaluation_tables.py` has the numbers).
"""


CONVINCING: Final = 0.1
"""How far of the way from guessing to the teacher a student must be before all of its recovery is expected."""


def expected_accuracy(accuracy: float, *, teacher_accuracy: float, shortfall: float, chance: float = 0.0) -> float:
    """`A_T - f (A_T - A)` for a student below the teacher, `A` for one above: the accuracy to expect in the end.

    A quick judgement is the lower the smaller a student is, for small students take longest to recover, so that a
    reward of the bare accuracy prefers large ones. `f = 1` is the accuracy as it is. A student that only guesses has
    shown nothing: between `chance` and a tenth of the way from there to the teacher, f goes from 1 to `shortfall`.
    """
    if shortfall == 1 or accuracy >= teacher_accuracy:
        return accuracy
    way = (accuracy - chance) / (CONVINCING * (teacher_accuracy - chance)) if teacher_accuracy > chance else 0.0
    counted = 1 - (1 - shortfall) * min(1.0, max(0.0, way))
    return teacher_accuracy - counted * (teacher_accuracy - accuracy)


def constrained(reward: float, violation: bool, iteration: int, horizon: int = 15, power: int = 4) -> float:
    """`R' = (eps - 1) + eps R` while a constraint is violated, `R` otherwise; `eps = max(0, 1 - t/horizon)^power`.

    The penalty hardens with iteration t: at t = 0 it is `R' = R`, from `horizon` on `R' = -1`. In between R' lies
    between -1 and R; R = -1 is a fixed point.
    """
    if not violation:
        return reward
    epsilon = max(0.0, 1 - iteration / horizon) ** power
    return (epsilon - 1) + epsilon * reward


@dataclass(frozen=True)
class Budget:
    """What a student may cost at most; None leaves that cost free.

    Attributes:
        max_parameters: number of parameters.
        max_macs: multiply-accumulates for one example.
        max_latency_ms: median latency for one example, in ms.
        max_size_mb: parameters and buffers as they are stored, in MB (10^6 bytes).
    """

    max_parameters: float | None = None
    max_macs: float | None = None
    max_latency_ms: float | None = None
    max_size_mb: float | None = None

    def __post_init__(self) -> None:
        """Refuses what nothing can meet.

        Raises:
            ValueError: a limit that is not above 0.
        """
        for name in ("max_parameters", "max_macs", "max_latency_ms", "max_size_mb"):
            limit = getattr(self, name)
            if limit is not None and not limit > 0:
                raise ValueError(f"budget: {name} must be above 0, or None for no limit; got {limit}")

    @property
    def max_bytes(self) -> int | None:
        """The size as whole bytes; what rounding took from a share of the teacher is given back."""
        return None if self.max_size_mb is None else int(self.max_size_mb * 1e6 + 1e-3)

    def violations(self, evaluation: Evaluation) -> list[str]:
        """What of the budget a judged student breaks, in words; empty where it keeps to it."""
        found = self._cost_violations(evaluation.parameters, evaluation.macs)
        found += self._size_violations(evaluation.size_mb)
        limit, latency = self.max_latency_ms, evaluation.latency_ms
        if limit is not None and latency is None:
            found.append(f"the latency was not measured, {limit:g} ms allowed")
        elif limit is not None and latency is not None and latency > limit:
            found.append(f"{latency:.3g} ms, {limit:g} ms allowed")
        return found

    def refusal(self, cost: Cost) -> str:
        """The violations that are known without training, in one line; "" where there are none."""
        found = self._cost_violations(cost.parameters, cost.macs) + self._size_violations(cost.size_mb)
        return f"over the budget: {'; '.join(found)}" if found else ""

    def _cost_violations(self, parameters: int, macs: int) -> list[str]:
        pairs = ((parameters, self.max_parameters, "parameters"), (macs, self.max_macs, "MACs"))
        return [
            f"{value:,} {name}, {limit:,.0f} allowed"
            for value, limit, name in pairs
            if limit is not None and value > limit
        ]

    def _size_violations(self, size_mb: float | None) -> list[str]:
        limit, most = self.max_size_mb, self.max_bytes
        if limit is None or most is None:
            return []
        if size_mb is None:
            return [f"the size is not known, {limit:.4g} MB allowed"]
        return [f"{size_mb:.4g} MB, {limit:.4g} MB allowed"] if round(size_mb * 1e6) > most else []


def parse_budget(value: str | float | None, teacher_value: float, *, counts: bool = True) -> float | None:
    """A limit as a number: "20%" is a share of the teacher's value, "1.5M", "200k" and 2e8 are numbers, None is none.

    `counts` says that the quantity is counted, so that 0.5 of it makes no sense.

    Raises:
        ValueError: not readable, not above 0, a share above 100%, or a bare fraction of what is counted, which might
            mean a share.
    """
    if value is None:
        return None
    limit = _number(value, teacher_value)
    if not (math.isfinite(limit) and limit > 0):
        raise ValueError(f"a budget must be above 0 and finite; got {value!r}")
    if str(value).strip().endswith("%") and _number(value, 1.0) > 1:
        raise ValueError(f"budget {str(value).strip()!r} is more than the teacher has; give a share of at most 100%")
    if counts and limit < 1 and not str(value).strip().endswith("%"):
        raise ValueError(f"budget {value!r} is below 1; for a share of the teacher write '{limit * 100:g}%'")
    return limit


def _number(value: str | float, teacher_value: float) -> float:
    text = str(value).strip()
    scale, whole = 1.0, 1.0
    if text.endswith("%"):
        text, scale, whole = text[:-1], teacher_value, 100.0
    elif text[-1:] in _SUFFIXES:
        text, scale = text[:-1], _SUFFIXES[text[-1]]
    try:
        return float(text) * scale / whole  # in this order 100% is the teacher's own value, to the last bit
    except ValueError as error:
        raise ValueError(f"budget {value!r} is not a number; write e.g. '20%', '200k', '1.5M' or 2e8") from error


@final
@dataclass(frozen=True)
class Reward:
    """The reward of an evaluation, in {-1} and (-1, 1/A_T]; see `make_reward`."""

    teacher_accuracy: float
    teacher_parameters: int
    budget: Budget
    horizon: int = 15
    power: int = 4
    shortfall: float = 1.0
    chance: float = 0.0

    def __call__(self, evaluation: Evaluation, iteration: int = 0) -> float:
        """-1 where the student is not OK or not smaller than the teacher, else the (constrained) reward."""
        if evaluation.status is not Status.OK or evaluation.expected is None:
            return DEGENERATE
        accuracy = expected_accuracy(
            evaluation.expected,
            teacher_accuracy=self.teacher_accuracy,
            shortfall=self.shortfall,
            chance=self.chance,
        )
        reward = n2n_reward(
            accuracy,
            evaluation.parameters,
            teacher_accuracy=self.teacher_accuracy,
            teacher_parameters=self.teacher_parameters,
        )
        return constrained(reward, bool(self.budget.violations(evaluation)), iteration, self.horizon, self.power)


def make_reward(
    *,
    teacher_accuracy: float,
    teacher_parameters: int,
    budget: Budget | None = None,
    horizon: int = 15,
    power: int = 4,
    shortfall: float = 1.0,
    chance: float = 0.0,
) -> Reward:
    """The paper's reward against one teacher, with the annealed penalty where a budget is broken.

    Args:
        shortfall: below 1, what a student lacks to the teacher's accuracy counts by this share, see
            `expected_accuracy`.
        chance: the accuracy of guessing, 1/K.

    Raises:
        ValueError: a teacher without accuracy or parameters, a horizon or power below 1, or a shortfall outside (0, 1].
    """
    if horizon < 1 or power < 1:
        raise ValueError(f"reward: horizon and power must be 1 or more; got {horizon} and {power}")
    if not 0 < shortfall <= 1:
        raise ValueError(f"reward: shortfall must be above 0 and at most 1; got {shortfall}")
    n2n_reward(1.0, 1.0, teacher_accuracy=teacher_accuracy, teacher_parameters=teacher_parameters)
    within = budget if budget is not None else Budget()
    return Reward(teacher_accuracy, teacher_parameters, within, horizon, power, shortfall, chance)


BEYOND: Final = 0.25
"""The share of (0, 1) that is kept for scores above all of the reference, and as much for those below."""


def score_share(score: float, reference: Sequence[float]) -> float:
    """Where a training-free score lies among those of reference students: in (0, 1), the higher the score the higher.

    With the different reference scores `r_1 < ... < r_m` and `w = r_m - r_1`

        q(r_i) = 1/4 + 1/2 (i - 1) / (m - 1), and linear in between;
        q(s) = 1 - 1/4 / (1 + (s - r_m) / w) above them, q(s) = 1/4 / (1 + (r_1 - s) / w) below.

    Ours: ranks, so that it does not matter whether a score lies in [-4, 0] or grows to 1e20, but ranks among students
    that do not change, so that a share means the same from the first student of a run to the last; and a quarter at
    each end, so that a search is rewarded for going beyond what it is compared with. A single r has 1/2, and w = |r|
    (1 where r is 0).

    Raises:
        ValueError: no reference.
    """
    known = sorted(set(reference))
    if not known:
        raise ValueError("score_share: expected the scores of some reference students, found none")
    low, high = known[0], known[-1]
    end = BEYOND if len(known) > 1 else 0.5
    width = high - low or abs(high) or 1.0
    if score >= high:
        return 1 - end / (1 + (score - high) / width)
    if score <= low:
        return end / (1 + (low - score) / width)
    above = bisect_right(known, score)  # known[above - 1] <= score < known[above]
    left, right = known[above - 1], known[above]
    rank = above - 1 + (score - left) / (right - left)  # in [0, m - 1)
    return end + (1 - 2 * end) * rank / (len(known) - 1)


@final
@dataclass(frozen=True)
class ScoreReward:
    """The reward of a scored student, in {-1} and (-1, 1); see `make_score_reward`."""

    reference: tuple[float, ...]
    teacher_parameters: int | None
    budget: Budget
    horizon: int = 15
    power: int = 4

    def __call__(self, evaluation: Evaluation, iteration: int = 0) -> float:
        """-1 where the student is not OK, has no score or is not smaller than the teacher, else the reward."""
        if evaluation.status is not Status.OK or evaluation.score is None:
            return DEGENERATE
        reward = score_share(evaluation.score, self.reference)
        if self.teacher_parameters is not None:
            reward = n2n_reward(
                reward, evaluation.parameters, teacher_accuracy=1.0, teacher_parameters=self.teacher_parameters
            )
        violated = bool(self.budget.violations(evaluation))
        if violated and self.teacher_parameters is None:
            return DEGENERATE
        return constrained(reward, violated, iteration, self.horizon, self.power)


def make_score_reward(
    reference: Sequence[float],
    *,
    teacher_parameters: int | None,
    budget: Budget | None = None,
    horizon: int = 15,
    power: int = 4,
) -> ScoreReward:
    """`R = C (2 - C) q`, the paper's reward with `q = score_share(score)` for the share of the accuracy that is kept.

    Without a teacher `R = q`: there is nothing to be smaller than, and the budget alone holds students back; one that
    breaks it has -1, from the first iteration on.

    Args:
        reference: scores of reference students, e.g. random ones of the same spaces.
        teacher_parameters: None where there is no teacher to compress.
        budget: what a student may cost; with a teacher the penalty is that of `constrained`.

    Raises:
        ValueError: no reference, a teacher without parameters, or a horizon or power below 1.
    """
    if horizon < 1 or power < 1:
        raise ValueError(f"reward: horizon and power must be 1 or more; got {horizon} and {power}")
    if teacher_parameters is not None:
        compression(1.0, teacher_parameters)
    score_share(0.0, reference)
    known = tuple(sorted(set(reference)))
    return ScoreReward(known, teacher_parameters, budget if budget is not None else Budget(), horizon, power)
