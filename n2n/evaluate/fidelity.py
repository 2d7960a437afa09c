"""How faithful each rung is: its order of a panel against that of a long distillation, what it costs, what to use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from n2n.evaluate.judgements import Judgement
from n2n.evaluate.ladder import Correction, correction, signal
from n2n.evaluate.ranking import Ranking, ranking, ranking_gain
from n2n.evaluate.rungs import cheapest_first

FEWEST = 8
"""Students that a panel needs before a bootstrap interval over them says anything."""
WORTH = 0.03
"""By how much Kendall's tau must rise before a dearer rung is recommended on top of a cheaper one."""
SIZE = "parameter count"
MEASURES: Mapping[str, Callable[[Judgement], float | None]] = {
    "agreement": lambda one: one.agreement,
    "accuracy": lambda one: one.accuracy,
    "score": lambda one: one.score,
}
"""By what a rung may order students."""


class PanelError(ValueError):
    """A panel is too small to compare rungs on; the message says what to do."""


@dataclass(frozen=True)
class Fidelity:
    """One way of ordering students, against the truth.

    Attributes:
        rung, measure: what orders them; the measure of a size is empty.
        ranking: Kendall's tau with its interval.
        gain: tau minus that of the parameter count on the same students, with its interval; None for sizes.
        seconds: median of one judgement; 0 for sizes.
        cheaper: median over students of the truth's seconds over the rung's, None for sizes.
    """

    rung: str
    measure: str
    ranking: Ranking
    gain: Ranking | None
    seconds: float
    cheaper: float | None

    @property
    def no_better_than_size(self) -> bool:
        """Whether the interval of the gain reaches 0: on this panel, counting parameters ranks as well."""
        return self.gain is not None and self.gain.low <= 0


def truth_of(judgements: Sequence[Judgement], rung: str) -> dict[str, list[float]]:
    """The accuracies of a long distillation by student, one for each seed."""
    found: dict[str, list[float]] = {}
    for one in sorted((one for one in judgements if one.rung == rung and one.ok), key=lambda one: one.seed):
        if one.accuracy is not None:
            found.setdefault(one.fingerprint, []).append(one.accuracy)
    return found


def fidelities(judgements: Sequence[Judgement], truth: str, *, fewest: int = FEWEST) -> tuple[Fidelity, ...]:
    """Every rung by every measure that it has, sizes first, each against the mean accuracy of the rung `truth`.

    Raises:
        PanelError: fewer than `fewest` students were judged by `truth`.
    """
    accuracies = truth_of(judgements, truth)
    if len(accuracies) < fewest:
        raise PanelError(
            f"the panel is too small for an interval: {len(accuracies)} students were judged by {truth}, expected"
            f" {fewest} or more; allow more time, or a larger panel"
        )
    mean = {key: float(np.mean(values)) for key, values in accuracies.items()}
    one_each = {one.fingerprint: one for one in judgements if one.fingerprint in mean}
    sizes = {key: float(one.parameters) for key, one in one_each.items()}
    macs = {key: float(one.macs) for key, one in one_each.items()}
    whole = _seconds(judgements, truth)
    lines = [_line(what, "", values, mean, sizes, {}, whole) for what, values in ((SIZE, sizes), ("MACs", macs))]
    for rung in dict.fromkeys(one.rung for one in judgements if one.rung != truth):
        seconds = _seconds(judgements, rung)
        for measure, take in MEASURES.items():
            own = {one.fingerprint: take(one) for one in judgements if one.rung == rung and one.ok and one.seed == 0}
            values = {
                key: value for key, value in own.items() if value is not None and np.isfinite(value) and key in mean
            }
            if len(values) >= fewest:
                lines.append(_line(rung, measure, values, mean, sizes, seconds, whole))
    return tuple(lines)


def ceiling(judgements: Sequence[Judgement], truth: str, *, fewest: int = FEWEST) -> Ranking | None:
    """Kendall's tau between two seeds of the long distillation: what is above can hardly be told from noise.

    None where fewer than `fewest` students have two seeds.
    """
    twice = [values for values in truth_of(judgements, truth).values() if len(values) > 1]
    if len(twice) < fewest:
        return None
    return ranking([values[0] for values in twice], [values[1] for values in twice])


def _seconds(judgements: Sequence[Judgement], rung: str) -> dict[str, float]:
    """The seconds of a rung by student, the mean over its seeds."""
    found: dict[str, list[float]] = {}
    for one in judgements:
        if one.rung == rung and one.ok:
            found.setdefault(one.fingerprint, []).append(one.seconds)
    return {key: float(np.mean(values)) for key, values in found.items()}


def _line(
    rung: str,
    measure: str,
    values: Mapping[str, float],
    truth: Mapping[str, float],
    sizes: Mapping[str, float],
    seconds: Mapping[str, float],
    whole: Mapping[str, float],
) -> Fidelity:
    both = sorted(key for key in truth if key in values)
    judged, wanted = [values[key] for key in both], [truth[key] for key in both]
    gain = ranking_gain(judged, [sizes[key] for key in both], wanted) if seconds else None
    each = [seconds[key] for key in both if key in seconds]
    ratios = [whole[key] / seconds[key] for key in both if min(whole.get(key, 0.0), seconds.get(key, 0.0)) > 0]
    return Fidelity(rung, measure, ranking(judged, wanted), gain, float(np.median(each)) if each else 0.0,
                    float(np.median(ratios)) if ratios else None)  # fmt: skip


def best_measures(lines: Sequence[Fidelity]) -> tuple[Fidelity, ...]:
    """Each rung once, by what a ladder takes from it: agreement where there is one, else accuracy, else score."""
    order = list(MEASURES)
    found: dict[str, Fidelity] = {}
    for one in sorted((one for one in lines if one.measure), key=lambda one: order.index(one.measure)):
        found.setdefault(one.rung, one)
    return tuple(sorted(found.values(), key=lambda one: one.seconds))


def recommended(lines: Sequence[Fidelity], truth: str) -> tuple[str, ...]:
    """The rungs to judge by, cheapest first: each ranks better than the ones before it by `WORTH` at least.

    A rung below the parameter count is passed over; where all are, the most faithful one stands alone. The last rung
    gives accuracies: behind a score stands the most faithful rung that has them, without what costs more than it does.
    Where none has, the long distillation `truth` itself is the last.
    """
    rungs = best_measures(lines)
    floor = next((one.ranking.tau for one in lines if one.rung == SIZE), -1.0)
    chosen: list[Fidelity] = []
    for one in rungs:
        if one.ranking.tau > floor and (not chosen or one.ranking.tau >= chosen[-1].ranking.tau + WORTH):
            chosen.append(one)
    if chosen and chosen[-1].measure != "score":
        return cheapest_first(tuple(one.rung for one in chosen))
    able = [one for one in rungs if one.measure != "score"]
    if not able:
        return (*(one.rung for one in chosen), truth)
    last = max(able, key=lambda one: one.ranking.tau)
    return cheapest_first((*(one.rung for one in chosen if one.seconds < last.seconds and one is not last), last.rung))


def expectations(judgements: Sequence[Judgement], rungs: Sequence[str], truth: str) -> dict[str, Correction]:
    """By rung, the least-squares line from what it says of a student to the mean accuracy of the rung `truth`."""
    mean = {key: float(np.mean(values)) for key, values in truth_of(judgements, truth).items()}
    lines = {}
    for rung in rungs:
        own = {one.fingerprint: signal(one) for one in judgements if one.rung == rung and one.ok and one.seed == 0}
        known = {key: value for key, value in own.items() if value is not None and key in mean}
        line = correction(list(known.values()), [mean[key] for key in known])
        if line is not None:
            lines[rung] = line
    return lines


def in_words(lines: Sequence[Fidelity], noise: Ranking | None) -> tuple[str, ...]:
    """What a reader must know of the table: which rungs rank no better than the parameter count, and the ceiling."""
    size = next(one for one in lines if one.rung == SIZE)
    said = []
    for one in best_measures(lines):
        if one.no_better_than_size and one.gain is not None:
            verb = "ranks no better" if one.gain.tau <= 0 else "is not shown to rank better"
            said.append(
                f"{one.rung} {verb} than the parameter count on this panel: tau {one.ranking.tau:.2f} against"
                f" {size.ranking.tau:.2f}, difference {one.gain.tau:+.2f} ({one.gain.low:+.2f} to {one.gain.high:+.2f})"
            )
    if noise is not None:
        said.append(
            f"two seeds of the long distillation agree at tau {noise.tau:.2f}: of what is above little can be said"
        )
    return tuple(said)
