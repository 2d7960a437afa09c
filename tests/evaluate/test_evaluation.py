"""The record of a judgement, its seed, and the shipped fake."""

from __future__ import annotations

import pytest

from n2n.evaluate import Evaluation, Status, evaluation_seed, fake


def record(**change):
    values = {
        "fingerprint": "ab",
        "architecture": "{}",
        "status": Status.OK,
        "reason": "",
        "accuracy": 0.5,
        "loss": 1.0,
        "parameters": 10,
        "macs": 20,
        "seconds": 0.1,
        "seed": 1,
        "fidelity": "test",
    }
    return Evaluation(**{**values, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"accuracy": None},
        {"accuracy": 1.5},
        {"accuracy": float("nan")},
        {"status": Status.FAILED, "reason": "diverged"},
        {"status": Status.INVALID, "accuracy": None},
        {"estimate": 1.01},
        {"estimate": float("nan")},
        {"accuracy": None, "score": float("inf")},
        {"accuracy": None, "estimate": 0.5},
    ],
)
def test_contradictions_are_refused(change):
    with pytest.raises(ValueError, match="student ab"):
        record(**change)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, 0.5),
        ({"estimate": 0.5}, 0.5),  # on the last rung
        ({"estimate": 0.75}, 0.75),  # predicted from an accuracy on a cheaper rung
        ({"accuracy": None, "score": -3.0, "estimate": 0.25}, 0.25),  # and from a score
        ({"accuracy": None, "score": -3.0}, None),
        ({"accuracy": None, "status": Status.FAILED, "reason": "diverged"}, None),
    ],
)
def test_what_rewards_are_made_of(change, expected):
    assert record(**change).expected == expected


def test_failures_have_a_reason_and_no_number():
    failed = record(status=Status.FAILED, reason="diverged", accuracy=None, loss=None)
    assert str(failed.status) == "failed"


def test_seeds_depend_on_run_and_student_alone():
    seeds = {evaluation_seed(run, name) for run in range(20) for name in ("a", "b", "c")}
    assert len(seeds) == 60
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert evaluation_seed(0, "a") == 2649998842  # of every machine and process: first 32 bits of SHA-256 of "0:a"


def test_the_fake_judges_by_its_function(world):
    students = world.students(3)
    evaluate = fake(world.space, lambda student: sum(student.widths) / 48)
    assert [one.accuracy for one in evaluate(students)] == [sum(one.widths) / 48 for one in students]
    assert evaluate.batches == [tuple(one.fingerprint for one in students)]


def test_the_fake_refuses_a_score_that_is_no_accuracy(world):
    with pytest.raises(ValueError, match=r"accuracy in \[0, 1\]"):
        fake(world.space, lambda student: 2.0)(world.students(1))
