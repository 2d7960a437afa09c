"""Rungs against a long distillation, on eight students that can be ordered by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from n2n.evaluate.fidelity import (
    SIZE,
    Fidelity,
    PanelError,
    best_measures,
    ceiling,
    fidelities,
    in_words,
    recommended,
    truth_of,
)
from n2n.evaluate.judgements import Judgement
from n2n.evaluate.ranking import Ranking
from n2n.evaluate.rungs import parse_ladder

TRUTH = "inherited:3e"
PAIRS = 28  # of eight students
FIRST = (0.10, 0.20, 0.30, 0.40, 0.50, 0.60, 0.80, 0.70)
SECOND = (0.24, 0.12, 0.30, 0.40, 0.50, 0.60, 0.80, 0.70)
"""The two seeds of the truth for students of 100, 200, ..., 800 parameters: one pair is the other way round. Their mean
is 0.17, 0.16, 0.30, ..., so that two of its pairs are not in the order of the sizes."""


def row(rung: str, place: int, *, seed: int = 0, seconds: float = 1.0, status: str = "ok", **found: float) -> Judgement:
    values: dict[str, float | None] = {"accuracy": None, "agreement": None, "score": None, **found}
    return Judgement(rung, seed, f"s{place}", 100 * (place + 1), 9000 - place, 0.1, 0.5, status, values["accuracy"],
                     values["agreement"], None, values["score"], seconds, "" if status == "ok" else "no")  # fmt: skip


def truth(places: int = 8) -> list[Judgement]:
    first = [row(TRUTH, place, seconds=10.0, accuracy=FIRST[place]) for place in range(places)]
    return first + [row(TRUTH, place, seed=1, seconds=14.0, accuracy=SECOND[place]) for place in range(places)]


def quick() -> list[Judgement]:
    """By agreement as the truth orders them, by accuracy the other way round; scores with one pair more swapped."""
    agreements = (0.17, 0.16, *FIRST[2:])
    scores = (1.0, 2.0, 4.0, 3.0, 5.0, 6.0, 7.0, 8.0)  # against the mean truth: three pairs
    return [
        *(row("refit:0", p, seconds=0.1 * (p + 1), agreement=agreements[p], accuracy=0.9 - agreements[p])
          for p in range(8)),
        *(row("score:naswot", p, seconds=0.0, score=scores[p]) for p in range(8)),
    ]  # fmt: skip


def by_name(lines: Sequence[Fidelity]) -> dict[tuple[str, str], Fidelity]:
    return {(one.rung, one.measure): one for one in lines}


def test_taus_by_hand() -> None:
    lines = by_name(fidelities([*truth(), *quick()], TRUTH))
    taus = {name: one.ranking.tau for name, one in lines.items()}
    assert taus == pytest.approx({
        (SIZE, ""): (PAIRS - 2 * 2) / PAIRS,
        ("MACs", ""): -(PAIRS - 2 * 2) / PAIRS,  # they fall where sizes grow
        ("refit:0", "agreement"): 1.0,
        ("refit:0", "accuracy"): -1.0,
        ("score:naswot", "score"): (PAIRS - 2 * 3) / PAIRS,
    })  # fmt: skip
    assert list(lines)[:2] == [(SIZE, ""), ("MACs", "")]
    assert {one.ranking.students for one in lines.values()} == {8}
    gains = {name: one.gain.tau for name, one in lines.items() if one.gain is not None}
    assert gains == pytest.approx({
        ("refit:0", "agreement"): 4 / PAIRS,
        ("refit:0", "accuracy"): -2 + 4 / PAIRS,
        ("score:naswot", "score"): -2 / PAIRS,
    })  # fmt: skip


def test_seconds_by_hand() -> None:
    lines = by_name(fidelities([*truth(), *quick()], TRUTH))
    refit = lines["refit:0", "agreement"]
    assert refit.seconds == pytest.approx(0.45)
    assert refit.cheaper == pytest.approx((12 / 0.4 + 12 / 0.5) / 2)  # the median of 12 over 0.1, 0.2, ..., 0.8
    free = lines["score:naswot", "score"]
    assert (free.seconds, free.cheaper) == (0.0, None)
    assert (lines[SIZE, ""].seconds, lines[SIZE, ""].cheaper, lines[SIZE, ""].gain) == (0.0, None, None)


def test_what_failed_or_is_no_number_is_left_out() -> None:
    more = [
        row(TRUTH, 8, status="failed"),
        row("refit:0", 8, agreement=-5.0),  # of a student without truth
        *(row("inherited:20", place, accuracy=0.1 * place) for place in range(7)),  # one too few
        *(row("inherited:40", place, agreement=math.nan if place == 3 else 0.1 * place) for place in range(8)),
        *(row("refit:0", place, seed=1, agreement=0.5) for place in range(8)),  # other seeds are for the truth
    ]
    names = set(by_name(fidelities([*truth(), *quick(), *more], TRUTH)))
    assert names == set(by_name(fidelities([*truth(), *quick()], TRUTH)))
    assert "s8" not in truth_of([*truth(), *more], TRUTH)
    assert truth_of(truth(), TRUTH)["s0"] == [0.10, 0.24]


def test_the_ceiling_is_the_tau_of_two_seeds() -> None:
    found = ceiling([*truth(), *quick()], TRUTH)
    assert found is not None
    assert found.tau == pytest.approx((PAIRS - 2) / PAIRS)
    assert ceiling(truth()[:15], TRUTH) is None
    with pytest.raises(PanelError, match="7 students were judged by inherited:3e, expected 8 or more; allow more time"):
        fidelities(truth(7), TRUTH)


def line(rung: str, measure: str, tau: float, seconds: float, gain: Ranking | None = None) -> Fidelity:
    return Fidelity(rung, measure, Ranking(tau, tau - 0.1, tau + 0.1, 8), gain, seconds, None)


COUNT = line(SIZE, "", 0.5, 0.0)


def test_each_rung_by_what_a_ladder_takes_from_it() -> None:
    lines = [COUNT, line("b", "accuracy", 0.9, 2.0), line("b", "agreement", 0.1, 2.0), line("a", "score", 0.3, 1.0)]
    assert [(one.rung, one.measure) for one in best_measures(lines)] == [("a", "score"), ("b", "agreement")]


@pytest.mark.parametrize(
    ("lines", "ladder"),
    [
        ([("refit:0", "agreement", 0.6, 1), ("inherited:60", "agreement", 0.7, 2)], ("refit:0", "inherited:60")),
        ([("inherited:60", "agreement", 0.7, 2), ("refit:0", "agreement", 0.6, 1)], ("refit:0", "inherited:60")),
        ([("refit:0", "agreement", 0.6, 1), ("inherited:60", "agreement", 0.62, 2)], ("refit:0",)),
        ([("refit:0", "agreement", 0.4, 1), ("inherited:60", "agreement", 0.7, 2)], ("inherited:60",)),
        ([("refit:0", "agreement", 0.4, 1), ("inherited:60", "agreement", 0.3, 2)], ("refit:0",)),
        ([("score:naswot", "score", 0.6, 1), ("refit:0", "agreement", 0.8, 2)], ("score:naswot", "refit:0")),
        ([("score:naswot", "score", 0.8, 1), ("refit:0", "agreement", 0.7, 2)], ("score:naswot", "refit:0")),
        # a score that costs more than the accuracies that stand behind it helps nobody
        ([("refit:0", "agreement", 0.6, 1), ("score:naswot", "score", 0.7, 2)], ("refit:0",)),
        ([("score:naswot", "score", 0.8, 1)], ("score:naswot", TRUTH)),
        ([("score:naswot", "score", 0.4, 1)], (TRUTH,)),
        ([], (TRUTH,)),
    ],
)
def test_recommended_ladders(lines: list[tuple[str, str, float, float]], ladder: tuple[str, ...]) -> None:
    assert recommended([COUNT, *(line(*one) for one in lines)], TRUTH) == ladder


RUNGS = ("refit:0", "inherited:60", "inherited:100", "score:naswot", "score:params")


@given(st.lists(st.tuples(st.sampled_from(RUNGS), st.floats(-1, 1), st.floats(0, 5)), unique_by=lambda one: one[0]))
def test_every_recommended_ladder_can_be_run(drawn: list[tuple[str, float, float]]) -> None:
    lines = [line(rung, "score" if rung[:5] == "score" else "agreement", tau, cost) for rung, tau, cost in drawn]
    ladder = recommended([COUNT, *lines], TRUTH)
    assert parse_ladder(ladder), ladder  # refuses a rung that comes twice, and a score at the end
    seconds = [next((one.seconds for one in lines if one.rung == rung), 9.0) for rung in ladder]
    lengths = [rung.length for rung in parse_ladder(ladder)]
    assert seconds == sorted(seconds) or lengths == sorted(lengths), "what was measured may turn a start upside down"


def test_in_words() -> None:
    worse = line("refit:0", "agreement", 0.4, 1.0, Ranking(-0.1, -0.3, 0.2, 8))
    unclear = line("inherited:60", "agreement", 0.6, 2.0, Ranking(0.1, -0.05, 0.25, 8))
    better = line("inherited:100", "agreement", 0.9, 3.0, Ranking(0.4, 0.2, 0.6, 8))
    assert [one.no_better_than_size for one in (worse, unclear, better, COUNT)] == [True, True, False, False]
    assert in_words([COUNT, worse, unclear, better], Ranking(0.93, 0.8, 1.0, 8)) == (
        "refit:0 ranks no better than the parameter count on this panel: tau 0.40 against 0.50, difference -0.10"
        " (-0.30 to +0.20)",
        "inherited:60 is not shown to rank better than the parameter count on this panel: tau 0.60 against 0.50,"
        " difference +0.10 (-0.05 to +0.25)",
        "two seeds of the long distillation agree at tau 0.93: of what is above little can be said",
    )
    assert in_words([COUNT, better], None) == ()
