"""The ladder: who climbs, what the rungs below are corrected by, and that nobody is judged in vain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from n2n.evaluate import Status, cached, fake, ladder
from n2n.evaluate.base import not_ok
from n2n.evaluate.ladder import Correction, correction


def expected(evaluation):
    return evaluation.expected


@pytest.fixture
def ranks(world):
    """Students, and by fingerprint a cheap and a dear accuracy that agree about their order."""
    students = world.students(12)
    dear = {one.fingerprint: 0.5 + 0.03 * place for place, one in enumerate(students)}
    cheap = {key: 2 * value - 1 for key, value in dear.items()}
    return students, cheap, dear


def judges(world, cheap, dear):
    def by(table):
        return fake(world.space, lambda one: table[one.fingerprint])

    return {"cheap": by(cheap), "dear": by(dear)}


def test_correction_is_the_least_squares_line():
    signals, accuracies = [0.1, 0.4, 0.5, 0.9], [0.55, 0.6, 0.72, 0.8]
    slope, intercept = np.polyfit(signals, accuracies, 1)
    line = correction(signals, accuracies)
    assert (line.slope, line.intercept) == pytest.approx((slope, intercept))
    missed = np.asarray(accuracies) - np.polyval((slope, intercept), signals)
    assert line.residual == pytest.approx(np.sqrt((missed**2).sum() / 2))
    assert line(100.0) == 1.0
    assert line(-100.0) == 0.0


@pytest.mark.parametrize("signals", [[0.5, 0.5, 0.5], [0.9, 0.5, 0.1], [0.3, 0.3, 0.3]])
def test_signals_that_say_nothing_leave_the_mean(signals):
    assert correction(signals, [0.2, 0.4, 0.6])(0.0) == pytest.approx(0.4)


def test_no_pair_gives_no_correction():
    assert correction([], []) is None


def test_the_first_students_climb_whole_and_then_the_better_share(world, ranks):
    students, cheap, dear = ranks
    rungs = judges(world, cheap, dear)
    evaluate = ladder(rungs, promote=0.4, rank=expected, first=4)
    first, rest = students[::3], [one for one in students if one not in students[::3]]
    assert all(one.rung == "dear" for one in evaluate(first))
    found = {one.fingerprint: one for one in evaluate(rest)}
    climbed = {key for key, one in found.items() if one.rung == "dear"}
    best = sorted(rest, key=lambda one: -dear[one.fingerprint])[:4]  # 0.4 of 8, rounded up
    assert climbed == {one.fingerprint for one in best}
    for key, one in found.items():
        assert one.estimate == pytest.approx(dear[key])  # the cheap rung is a line of the dear one
        assert one.settled == (key in climbed)
        assert one.accuracy == pytest.approx((dear if key in climbed else cheap)[key])


def test_a_student_that_cannot_reach_the_front_does_not_climb(world, ranks):
    students, cheap, dear = ranks
    noise = {key: value + 0.002 * (-1) ** place for place, (key, value) in enumerate(dear.items())}
    small, large = students[0].fingerprint, students[-1].fingerprint
    noise[small], cheap[small] = 0.95, 0.9  # the smallest is the best of all
    rungs = judges(world, cheap, noise)
    evaluate = ladder(rungs, promote=1.0, rank=expected, first=8)
    evaluate(students[:8])
    found = evaluate(students[8:])
    assert large in {one.fingerprint for one in found}
    assert {one.rung for one in found} == {"cheap"}
    assert len(rungs["dear"].batches) == 1


def test_a_failure_on_the_dear_rung_is_a_failure(world, ranks):
    students, cheap, dear = ranks
    rungs = judges(world, cheap, dear)

    def failing(batch):
        cost = world.space.cost
        return [
            not_ok(Status.FAILED, "diverged", one, cost(one), seconds=0.0, seed=0, fidelity="dear") for one in batch
        ]

    evaluate = ladder({"cheap": rungs["cheap"], "dear": failing}, rank=expected)
    assert all(one.status is Status.FAILED and one.rung == "dear" for one in evaluate(students[:3]))


def test_invalid_students_stay_below(world, ranks):
    students, cheap, dear = ranks
    rungs = judges(world, cheap, dear)

    def refusing(batch):
        cost = world.space.cost
        return [not_ok(Status.INVALID, "large", one, cost(one), seconds=0.0, seed=0, fidelity="none") for one in batch]

    evaluate = ladder({"cheap": refusing, "dear": rungs["dear"]}, rank=expected)
    assert all(one.status is Status.INVALID for one in evaluate(students[:3]))
    assert rungs["dear"].batches == []


def test_scores_are_brought_to_accuracies(world, ranks):
    students, cheap, dear = ranks
    rungs = judges(world, cheap, dear)

    def scored(batch):
        found = rungs["cheap"](batch)
        return [replace(one, accuracy=None, loss=None, score=1000 * one.accuracy) for one in found]

    evaluate = ladder({"score": scored, "dear": rungs["dear"]}, promote=0.25, rank=expected, first=4)
    evaluate(students[::3])
    found = evaluate([one for one in students if one not in students[::3]])
    assert sum(one.rung == "dear" for one in found) == 2
    assert all(one.expected == pytest.approx(dear[one.fingerprint]) for one in found)


def test_what_was_judged_before_an_interrupt_is_known(world, ranks):
    students, cheap, dear = ranks
    rungs = judges(world, cheap, dear)

    def interrupted(batch):
        if batch[0] is students[1]:
            raise KeyboardInterrupt
        return rungs["dear"](batch)

    each = {"cheap": cached(rungs["cheap"], one_by_one=True), "dear": cached(interrupted, one_by_one=True)}
    evaluate = cached(ladder(each, rank=expected))
    with pytest.raises(KeyboardInterrupt):
        evaluate(students[:3])
    assert [one.rung for one in evaluate.known(students[:3])] == ["dear", "cheap", "cheap"]


def test_the_seconds_are_those_of_all_rungs(world, ranks):
    students, cheap, dear = ranks

    def timed(evaluate, seconds):
        return cached(lambda batch: [replace(one, seconds=seconds) for one in evaluate(batch)])

    rungs = judges(world, cheap, dear)
    evaluate = ladder({"cheap": timed(rungs["cheap"], 1.0), "dear": timed(rungs["dear"], 10.0)}, rank=expected, first=2)
    found = evaluate(students)
    assert {(one.rung, one.seconds) for one in found} == {("cheap", 1.0), ("dear", 11.0)}
    assert [one.seconds for one in evaluate.known(students)] == [one.seconds for one in found]


@pytest.mark.parametrize(("rungs", "promote", "said"), [({}, 0.5, "one rung"), ({"a": None}, 0.0, "promote")])
def test_impossible_ladders_are_refused(rungs, promote, said):
    with pytest.raises(ValueError, match=said):
        ladder(rungs, promote=promote, rank=expected)


def test_after_a_calibration_every_rung_tells_the_accuracy_to_expect(world, ranks):
    students, cheap, dear = ranks
    lines = {"cheap": Correction(0.7, 0.25, 0.01), "dear": Correction(0.6, 0.4, 0.01)}
    evaluate = ladder(judges(world, cheap, dear), promote=0.25, rank=expected, expects=lines)
    found = {one.fingerprint: one for one in evaluate(students)}
    climbed = {key for key, one in found.items() if one.rung == "dear"}
    assert climbed == {one.fingerprint for one in students[-3:]}  # a quarter of 12, and nobody climbs unasked
    for key, one in found.items():
        value = 0.6 + 0.4 * dear[key] if key in climbed else 0.7 + 0.25 * cheap[key]
        assert one.estimate == pytest.approx(value)
        assert one.settled == (key in climbed)


def test_expectations_are_of_the_rungs(world, ranks):
    _, cheap, dear = ranks
    with pytest.raises(ValueError, match="a line for each of cheap, dear; found them for cheap"):
        ladder(judges(world, cheap, dear), rank=expected, expects={"cheap": Correction(0.5, 0.5, 0.1)})
