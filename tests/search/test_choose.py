"""Who is distilled at length: by reward, within the budget, and measured before predicted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from n2n.evaluate.base import Evaluation, Status
from n2n.reward import Budget, make_reward
from n2n.search.finish import choose

REWARD = make_reward(teacher_accuracy=1.0, teacher_parameters=1000)
FREE = Budget()


def judged(
    name: str, parameters: int, accuracy: float | None, *, estimate: float | None = None, macs: int | None = None
) -> Evaluation:
    score = 1.0 if accuracy is None else None
    return Evaluation(name, "{}", Status.OK, "", accuracy, 1.0, parameters, parameters if macs is None else macs,
                      0.1, 0, "x", score=score, estimate=estimate, settled=estimate in (None, accuracy))  # fmt: skip


def names(evaluations: list[Evaluation], budget: Budget = FREE, finalists: int = 2) -> list[str]:
    return [one.evaluation.fingerprint for one in choose(evaluations, budget, REWARD, finalists)]


def test_the_best_reward_of_the_front() -> None:
    # C(2 - C)A by hand: 0.75 * 0.8 = 0.6, 0.96 * 0.7 = 0.672, 0.99 * 0.5 = 0.495; "worse" is off the front
    found = [judged("half", 500, 0.8), judged("fifth", 200, 0.7), judged("tenth", 100, 0.5), judged("worse", 300, 0.6)]
    assert names(found) == ["fifth", "half"]
    assert names(found, finalists=9) == ["fifth", "half", "tenth"]
    (first, *_) = choose(found, FREE, REWARD, 1)
    assert round(first.reward, 6) == 0.672
    assert first.violations == ()


def test_measured_students_come_before_predicted_ones() -> None:
    predicted = judged("predicted", 200, 0.3, estimate=0.9)
    scored = judged("scored", 150, None, estimate=0.95)
    measured = judged("measured", 400, 0.5, estimate=0.5)
    assert names([predicted, measured, scored], finalists=3) == ["measured"]
    assert names([predicted, scored], finalists=3) == ["scored"], "it is the better one in both, as far as one knows"
    small = Budget(max_parameters=250)
    assert names([predicted, measured], small) == ["predicted"], "the measured one misses the budget"


def test_a_prediction_counts_as_the_accuracy_that_it_predicts() -> None:
    """By its accuracy on the cheap rung "a" would be off the front."""
    a, b = judged("a", 300, 0.2, estimate=0.8), judged("b", 200, 0.6, estimate=0.7)
    assert names([a, b]) == ["a", "b"]  # 0.91 * 0.8 = 0.728 and 0.96 * 0.7 = 0.672


def test_the_front_over_macs_is_looked_at_too() -> None:
    found = [judged("small", 200, 0.8, macs=900), judged("quick", 300, 0.7, macs=100)]
    assert names(found) == ["small", "quick"]


def test_where_nobody_meets_the_budget_the_smallest_of_the_front_stands_in() -> None:
    found = [judged("large", 600, 0.9), judged("less", 400, 0.6), judged("off", 450, 0.5)]
    (one,) = choose(found, Budget(max_parameters=100), REWARD, 2)
    assert one.evaluation.fingerprint == "less"
    assert one.violations == ("400 parameters, 100 allowed",)
    assert choose([], FREE, REWARD, 2) == ()
    scored = judged("scored", 100, None)
    assert [one.evaluation for one in choose([scored], FREE, REWARD, 2)] == [scored]
    (one,) = choose([scored, judged("less", 400, 0.6)], FREE, REWARD, 2)
    assert one.evaluation.fingerprint == "less", "nothing is known of the other's accuracy"


shares = st.floats(0, 1)
students = st.lists(st.tuples(st.integers(1, 999), st.integers(1, 999), shares, st.none() | shares), max_size=12)


@given(students, st.integers(1, 4), st.integers(1, 999))
def test_nobody_is_chosen_whom_somebody_better_known_beats(
    drawn: list[tuple[int, int, float, float | None]], finalists: int, most: int
) -> None:
    found = [judged(str(i), p, a, estimate=e, macs=m) for i, (p, m, a, e) in enumerate(drawn)]
    budget = Budget(max_parameters=most)
    chosen = choose(found, budget, REWARD, finalists)
    meeting = [one for one in found if one.parameters <= most]
    assert bool(chosen) == bool(found)
    if not meeting:
        assert all(one.violations for one in chosen)
        return
    assert len(chosen) <= finalists
    rewards = [one.reward for one in chosen]
    assert rewards == sorted(rewards, reverse=True)
    assert all(one.evaluation in meeting and not one.violations for one in chosen)
    if any(one.settled for one in meeting):
        best = max(REWARD(one) for one in meeting if one.settled)
        assert all(one.evaluation.settled for one in chosen)
        assert chosen[0].reward == best, "the reward grows with accuracy and falls with size: its best is on the front"
