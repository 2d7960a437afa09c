"""The tables of the pages of how judgements rank students: of `evaluation.py` and `ladders.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import mean, median

from evaluation import BENCHES
from rows import RESULTS, markdown, rows_of
from scipy.stats import kendalltau

from n2n.evaluate.fidelity import FEWEST as FEWEST_FOR_INTERVAL
from n2n.evaluate.fidelity import MEASURES, SIZE, truth_of
from n2n.evaluate.judgements import Judgement, read_judgements
from n2n.evaluate.ranking import Ranking, ranking, ranking_gain
from n2n.reward import SHORTFALL, expected_accuracy

FEWEST = 12
"""Students of a rung that is shown."""
PAPER = "paper:5e"
"""What judgements are compared with: five epochs from scratch (Ashok et al., section 4)."""


def evaluators(name: str) -> str:
    """How rungs rank a panel by what they say of a student, and what they cost beside the paper's recipe."""
    header = ("judgement", "tau by agreement or score", "tau by accuracy",
              "the better of both beyond the parameter count", "tau of its rewards", "the same, as searches reward",
              "seconds a student",
              "cheaper than the paper's recipe", "students")  # fmt: skip
    rewards = reward_taus(name)
    rungs: dict[str, dict[str, dict[str, str]]] = {}
    for row in rows_of(f"{name}-ranking"):
        rungs.setdefault(row["rung"], {})[row["measure"]] = row
    seconds, lines = seconds_of(f"{name}-seconds"), []
    for rung, by in sorted(rungs.items(), key=lambda pair: max(float(row["tau"]) for row in pair[1].values())):
        best = max(by.values(), key=lambda row: float(row["tau"]))
        if int(best["students"]) < FEWEST and "seeds" not in rung:
            continue  # it has only begun
        gains = [float(best[key]) for key in ("gain", "gain_low", "gain_high") if best[key]]
        own, paper = seconds.get(rung, {}), seconds.get(PAPER, {})
        lines.append(
            (
                rung,
                interval(by.get("agreement") or by.get("score") or by.get("")),
                interval(by.get("accuracy")),
                "{:+.2f} ({:+.2f} to {:+.2f})".format(*gains) if gains else "",
                *(f"{tau:.2f}" for tau in rewards.get(rung, ())),
                *([""] * 2 if rung not in rewards else []),
                f"{median(own.values()):.2g}" if own else "",
                f"{median(paper[key] / own[key] for key in own):.0f}x" if own and paper else "",
                best["students"],
            )
        )
    return markdown(header, lines)


def reward_taus(name: str) -> dict[str, tuple[float, float]]:
    """Kendall's tau of a rung's rewards with those of the long distillation: as they are, and as searches reward."""
    judgements = [one for one in read_judgements(RESULTS / f"{name}-evaluators.csv") if one.ok]
    truth, whole = truth_of(judgements, TRUTH), BENCHES[name].accuracy
    found = {}
    for rung in dict.fromkeys(one.rung for one in judgements if one.rung != TRUTH):
        own = [one for one in judgements if (one.rung, one.seed) == (rung, 0) and one.fingerprint in truth]
        accuracies = [one.accuracy for one in own if one.accuracy is not None]
        if len(own) < FEWEST_FOR_INTERVAL or len(accuracies) < len(own):
            continue
        weights = [(1 - one.share) * (1 + one.share) for one in own]  # C (2 - C) with C = 1 - share
        long = [weight * mean(truth[one.fingerprint]) for weight, one in zip(weights, own, strict=True)]
        taus = []
        for shortfall in (1.0, SHORTFALL):
            expected = [
                expected_accuracy(one, teacher_accuracy=whole, shortfall=shortfall, chance=0.1) for one in accuracies
            ]
            quick = [weight * one for weight, one in zip(weights, expected, strict=True)]
            taus.append(float(kendalltau(quick, long)[0]))
        found[rung] = (taus[0], taus[1])
    return found


TRUTH = "inherited:3e"
"""The long distillation that judgements are measured with."""
BESIDE = (
    SIZE,
    PAPER,
    "score:taught_capacity",
    "refit:0",
    "refit:20",
    "refit:40",
    "refit:40:logit_mse",
    "refit:60",
    "refit:60:logit_mse",
    "inherited:60",
    "inherited:100",
)
"""What is shown beside the paper's recipe on the students that it has judged."""


@dataclass(frozen=True)
class Beside:
    """How a judgement ranks, by the better of its measures, and how much better than the paper's recipe by its own."""

    tau: Ranking
    gain: Ranking


def beside() -> dict[str, dict[str, Beside]]:
    """How judgements rank the students that the paper's recipe has judged, by panel and rung."""
    found: dict[str, dict[str, Beside]] = {}
    for name, words in (("fashion-mnist", "Fashion-MNIST"), ("cifar-10", "CIFAR-10")):
        judgements = [one for one in read_judgements(RESULTS / f"{name}-evaluators.csv") if one.ok]
        truth = {key: mean(values) for key, values in truth_of(judgements, TRUTH).items()}
        mine = sorted(one.fingerprint for one in judgements if one.rung == PAPER and one.fingerprint in truth)
        if len(mine) < FEWEST_FOR_INTERVAL:
            continue
        wanted = [truth[key] for key in mine]
        judged = {rung: _best(judgements, rung, mine, wanted) for rung in BESIDE}
        found[f"{words}, {len(mine)} students"] = {
            rung: Beside(ranking(values, wanted), ranking_gain(values, judged[PAPER], wanted))
            for rung, values in judged.items()
        }
    return found


def _best(judgements: Sequence[Judgement], rung: str, students: Sequence[str], wanted: Sequence[float]) -> list[float]:
    """What a rung says of the students, by that of its measures which ranks them better."""
    if rung == SIZE:
        sizes = {one.fingerprint: float(one.parameters) for one in judgements}
        return [sizes[key] for key in students]
    own = {one.fingerprint: one for one in judgements if (one.rung, one.seed) == (rung, 0)}
    taken = ([take(own[key]) for key in students] for take in MEASURES.values())
    said = [[value for value in values if value is not None] for values in taken]
    whole = [values for values in said if len(values) == len(students)]
    return max(whole, key=lambda values: ranking(values, wanted).tau)


def beside_paper() -> str:
    """The same as a table."""
    found = beside()
    if not found:
        return "Not run yet."
    header = ("judgement", *chain.from_iterable((panel, "beyond the paper's recipe") for panel in found))
    lines = [
        (rung, *chain.from_iterable((told(by[rung].tau), told(by[rung].gain, "+")) for by in found.values()))
        for rung in BESIDE
    ]
    return markdown(header, lines)


def told(ranks: Ranking, sign: str = "") -> str:
    """A tau, or a difference of two, and its 95% interval."""
    return f"{ranks.tau:{sign}.2f} ({ranks.low:{sign}.2f} to {ranks.high:{sign}.2f})"


SOLVED = {"refit:3e": "in the smaller steps of such starts", "refit:3e usual steps": "in the steps of inherited starts"}
"""The same from the closed form."""


def starts() -> str:
    """What the long distillation gives from either start, in words."""
    judgements = [one for one in read_judgements(RESULTS / "fashion-mnist-evaluators.csv") if one.ok]
    inherited, words = truth_of(judgements, TRUTH), []
    for rung, how in SOLVED.items():
        gains = [(one.share, 100 * (one.accuracy - mean(inherited[one.fingerprint]))) for one in judgements
                 if one.rung == rung and one.accuracy is not None]  # fmt: skip
        each = ", ".join(f"{gain:+.2f} ({share:.0%})" for share, gain in sorted(gains))
        average = f", on average {mean(gain for _, gain in gains):+.2f}" if len(gains) > 1 else ""
        words.append(f"{how} {each}{average}")
    return (
        f"Three epochs that start in closed form against three from inherited weights (the mean of their two seeds), in"
        f" points of accuracy, beside each student its share of the parameters: {'; '.join(words)}."
    )


HEADLINES = ("refit:0", "refit:40", "refit:40:logit_mse", "refit:60", "score:taught_capacity", "inherited:100")


def headline() -> str:
    """How the cheap judgements rank, and how much cheaper than the paper's recipe they are, in a few words."""
    name = "fashion-mnist"
    panel, seconds = next(iter(beside().values())), seconds_of(f"{name}-seconds")
    words = []
    for rung in HEADLINES:
        if rung not in panel:
            continue
        own, paper = seconds.get(rung, {}), seconds.get(PAPER, {})
        cheaper = f", {median(paper[key] / own[key] for key in own):.0f}x cheaper" if own and paper else ""
        words.append(f"`{rung}` {told(panel[rung].tau)}, {told(panel[rung].gain, '+')} beside the paper's{cheaper}")
    noise = next(row for row in rows_of(f"{name}-ranking") if row["rung"] == f"{TRUTH}, two seeds")
    return (
        f"Kendall's tau with three epochs of distillation, {noise['students']} students of a ResNet-20 on Fashion-"
        f"MNIST, by accuracy or agreement, whichever ranks better: the paper's five epochs {told(panel[PAPER].tau)};"
        f" {'; '.join(words)}; the parameter count {told(panel[SIZE].tau)}; two seeds of the three epochs"
        f" {interval(noise)}."
    )


def ladder_rewards(name: str) -> str:
    """How well the rewards of a ladder order students, in words."""
    rows = {row["rewards"]: row for row in rows_of(name)}
    tau = {kind: f"{float(row['tau']):.2f}" for kind, row in rows.items()}
    rungs = ", ".join(f"`{rung}`" for rung in rows["common"]["rungs"].split())
    return (
        f"On the ladder {rungs} Kendall's tau with the rewards after three epochs of KD is {tau['common']} where the"
        f" first rung alone rewards, {tau['raw']} by the accuracies as they are, {tau['corrected']} corrected to the"
        f" last rung, {tau['part']} where a part of the shortfall counts besides (what searches do unasked) and"
        f" {tau['expected']} by the `[expects]` of a calibration."
    )


def interval(row: dict[str, str] | None) -> str:
    """Kendall's tau and its 95% interval."""
    return "" if row is None else f"{float(row['tau']):.2f} ({float(row['low']):.2f} to {float(row['high']):.2f})"


def seconds_of(name: str) -> dict[str, dict[str, float]]:
    """By rung and student."""
    seconds: dict[str, dict[str, float]] = {}
    for row in rows_of(name):
        seconds.setdefault(row["rung"], {})[row["fingerprint"]] = float(row["seconds"])
    return seconds
