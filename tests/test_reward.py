"""The reward against values worked by hand, and its range and fixed points."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from n2n.evaluate import Evaluation, Status
from n2n.reward import (
    Budget,
    compression,
    constrained,
    expected_accuracy,
    make_reward,
    n2n_reward,
    parse_budget,
)
from search_spaces.base import Cost


def judged(parameters: int = 100, accuracy: float | None = 0.9, status: Status = Status.OK, **change) -> Evaluation:
    values = {
        "fingerprint": "ab",
        "architecture": "{}",
        "status": status,
        "reason": "" if status is Status.OK else "why",
        "accuracy": accuracy if status is Status.OK else None,
        "loss": None,
        "parameters": parameters,
        "macs": 1000,
        "seconds": 0.0,
        "seed": 0,
        "fidelity": "test",
    }
    return Evaluation(**{**values, **change})


@pytest.mark.parametrize(("times", "value"), [(2, 0.75), (5, 0.96), (10, 0.99), (20, 0.9975)])
def test_reward_at_the_teachers_accuracy(times, value):
    assert n2n_reward(0.9, 1000 / times, teacher_accuracy=0.9, teacher_parameters=1000) == pytest.approx(value)


def test_reward_of_a_published_student():
    # ResNet-18 on CIFAR-10 after removal: 91.97% at 2.12M against 92.01% at 11.17M.
    reward = n2n_reward(0.9197, 2.12e6, teacher_accuracy=0.9201, teacher_parameters=11.17e6)
    assert reward == pytest.approx((1 - (2.12 / 11.17) ** 2) * 0.9197 / 0.9201, rel=1e-9)


@given(st.floats(0, 1), st.floats(0, 1e6), st.floats(0.05, 1), st.floats(1, 1e6))
def test_reward_stays_in_its_range(accuracy, parameters, teacher_accuracy, teacher_parameters):
    reward = n2n_reward(accuracy, parameters, teacher_accuracy=teacher_accuracy, teacher_parameters=teacher_parameters)
    assert reward == -1 or 0 <= reward <= 1 / teacher_accuracy + 1e-9


@pytest.mark.parametrize("parameters", [1000, 1001, 5000])
def test_students_not_smaller_than_the_teacher_get_minus_one(parameters):
    assert n2n_reward(1.0, parameters, teacher_accuracy=0.9, teacher_parameters=1000) == -1


def test_compression_by_hand():
    assert compression(25, 100) == 0.75
    assert compression(150, 100) == -0.5
    with pytest.raises(ValueError, match="a teacher has parameters"):
        compression(1, 0)


def test_penalty_by_hand():
    assert constrained(0.8, True, 3) == pytest.approx((0.8**4 - 1) + 0.8**4 * 0.8)
    assert constrained(0.8, True, 5, horizon=10, power=1) == pytest.approx(-0.5 + 0.5 * 0.8)
    assert constrained(0.8, False, 99) == 0.8


@given(st.floats(-1, 2), st.integers(0, 40))
def test_the_penalty_hardens_between_the_reward_and_minus_one(reward, iteration):
    now, later = constrained(reward, True, iteration), constrained(reward, True, iteration + 1)
    assert -1 - 1e-12 <= later <= now + 1e-12 <= reward + 1e-9
    assert constrained(reward, True, 0) == reward
    assert constrained(reward, True, 15) == -1
    assert constrained(-1.0, True, iteration) == -1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("20%", 200.0),
        ("0.5%", 5.0),
        (" 50% ", 500.0),
        ("1.5M", 1.5e6),
        ("200k", 2e5),
        ("2G", 2e9),
        (2e8, 2e8),
        (300, 300.0),
    ],
)
def test_budgets_are_read(value, expected):
    assert parse_budget(value, 1000) == pytest.approx(expected)


def test_no_budget_stays_none():
    assert parse_budget(None, 1000) is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("small", "write e.g. '20%'"),
        ("", "is not a number"),
        ("-5%", "above 0"),
        (0, "above 0"),
        ("nan", "above 0"),
        ("inf", "above 0"),
        (0.2, r"for a share of the teacher write '20%'"),
        ("120%", r"'120%' is more than the teacher has; give a share of at most 100%"),
        (" 100.1% ", "more than the teacher has"),
    ],
)
def test_unreadable_budgets_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        parse_budget(value, 1000)


def test_violations_name_what_is_over():
    budget = Budget(max_parameters=100, max_macs=900, max_latency_ms=2.0)
    assert budget.violations(judged(parameters=100, macs=900, latency_ms=2.0)) == []
    found = budget.violations(judged(parameters=101, macs=1000, latency_ms=2.5))
    assert found == ["101 parameters, 100 allowed", "1,000 MACs, 900 allowed", "2.5 ms, 2 ms allowed"]


def test_an_unmeasured_latency_does_not_pass_for_a_low_one():
    assert Budget(max_latency_ms=2.0).violations(judged()) == ["the latency was not measured, 2 ms allowed"]


def test_refusal_is_known_from_the_cost():
    budget = Budget(max_parameters=100, max_latency_ms=1.0)
    assert budget.refusal(Cost(100, 5)) == ""
    assert budget.refusal(Cost(101, 5)) == "over the budget: 101 parameters, 100 allowed"


def test_a_size_is_bounded_in_whole_bytes():
    budget = Budget(max_size_mb=0.0003)
    assert budget.max_bytes == 300
    assert budget.refusal(Cost(10, 5, 300)) == ""
    assert budget.refusal(Cost(10, 5, 301)) == "over the budget: 0.000301 MB, 0.0003 MB allowed"
    assert budget.violations(judged(size_mb=0.0003)) == []
    assert budget.violations(judged(size_mb=0.000301)) == ["0.000301 MB, 0.0003 MB allowed"]
    assert budget.violations(judged()) == ["the size is not known, 0.0003 MB allowed"]
    for stored in range(1, 3000, 7):  # a share of 100% allows the teacher itself, whatever the rounding
        assert Budget(max_size_mb=parse_budget("100%", stored / 1e6, counts=False)).max_bytes == stored


def test_what_is_measured_may_be_a_fraction():
    assert parse_budget(0.2, 7.0, counts=False) == 0.2
    assert parse_budget("50%", 7.0, counts=False) == 3.5


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(ValueError, match="max_macs must be above 0"):
        Budget(max_macs=0)


def test_the_whole_reward():
    reward = make_reward(teacher_accuracy=0.9, teacher_parameters=1000, budget=Budget(max_parameters=200))
    assert reward(judged(parameters=100)) == pytest.approx(0.99)
    assert reward(judged(parameters=100), 99) == pytest.approx(0.99)
    assert reward(judged(parameters=500), 0) == pytest.approx(0.75)
    assert reward(judged(parameters=500), 15) == -1
    assert reward(judged(status=Status.FAILED)) == -1
    assert reward(judged(status=Status.INVALID)) == -1


def test_of_what_a_student_lacks_a_share_counts():
    assert expected_accuracy(0.6, teacher_accuracy=0.9, shortfall=0.35) == pytest.approx(0.795)
    assert expected_accuracy(0.95, teacher_accuracy=0.9, shortfall=0.35) == 0.95
    assert expected_accuracy(0.1 + 0.2, teacher_accuracy=0.9, shortfall=1.0) == 0.1 + 0.2, "to the last bit"
    # who guesses has shown nothing; halfway to a tenth of the way, half of the recovery is expected
    guessing, half = (
        expected_accuracy(value, teacher_accuracy=0.9, shortfall=0.35, chance=0.1) for value in (0.1, 0.14)
    )
    assert guessing == pytest.approx(0.1)
    assert half == pytest.approx(0.9 - (1 - 0.65 / 2) * 0.76)
    assert expected_accuracy(0.18, teacher_accuracy=0.9, shortfall=0.35, chance=0.1) == pytest.approx(0.9 - 0.35 * 0.72)
    assert expected_accuracy(0.05, teacher_accuracy=0.1, shortfall=0.35, chance=0.1) == pytest.approx(0.05)
    reward = make_reward(teacher_accuracy=0.9, teacher_parameters=1000, shortfall=0.35)
    found = judged(parameters=200, accuracy=0.6)
    assert reward(found) == pytest.approx(0.8 * 1.2 * 0.795 / 0.9)


@pytest.mark.parametrize(
    "change",
    [
        {"teacher_accuracy": 0.0},
        {"teacher_parameters": 0},
        {"horizon": 0},
        {"power": 0},
        {"shortfall": 0.0},
        {"shortfall": 1.1},
    ],
)
def test_rewards_without_a_meaning_are_refused(change):
    with pytest.raises(ValueError, match=r"teacher|horizon|shortfall"):
        make_reward(**{"teacher_accuracy": 0.9, "teacher_parameters": 10, **change})
