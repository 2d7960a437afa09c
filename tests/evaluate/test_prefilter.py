"""Prefilters: whom they choose, with what chance, and that what is made of it is right on average."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from n2n.agents import Trajectory
from n2n.evaluate.base import Evaluation, Status, not_ok
from n2n.evaluate.ladder import Climbs
from n2n.evaluate.prefilter import Draw, Prefilter, prefilter
from n2n.search.filtered import corrected, only_judged
from search_spaces.base import Architecture
from search_spaces.toy import ToyArchitecture, toy

ARMS = 8
SPACE = toy(decisions=2, actions=3, width=6, first_needs_half=False)
STUDENTS = tuple(SPACE.all())  # nine less the one of two narrowest layers
"""The arms of a bandit."""
SCORES = (0.1, 0.9, 0.3, 0.8, 0.2, 0.7, 0.5, 0.4)
REWARDS = (0.9, 0.3, 0.1, 0.6, 0.5, 0.8, 0.2, 0.4)  # the score tells little of them


def arm(student: Architecture) -> int:
    assert isinstance(student, ToyArchitecture)
    return STUDENTS.index(student)


def student(index: int) -> ToyArchitecture:
    return STUDENTS[index]


def said(one: Architecture, **values: object) -> Evaluation:
    cost = SPACE.cost(one)
    base = not_ok(Status.INVALID, "to be replaced", one, cost, seconds=0.0, seed=0, fidelity="said")
    return replace(base, status=Status.OK, reason="", **values)  # type: ignore[arg-type]


def score(students: Sequence[Architecture]) -> list[Evaluation]:
    return [said(one, score=SCORES[arm(one)]) for one in students]


def judge(students: Sequence[Architecture]) -> list[Evaluation]:
    return [said(one, accuracy=REWARDS[arm(one)]) for one in students]


def reward(one: Evaluation) -> float:
    return -1.0 if one.expected is None else one.expected


def experience() -> Climbs:
    """What six students of earlier batches have shown; the line through them is accuracy = 0.2 + 0.5 score."""
    climbs = Climbs()
    for index in range(6):
        earlier = replace(score([student(index)])[0], fingerprint=f"earlier {index}")
        climbs.enter("prefilter:fake", earlier, last=False)
        accuracy = 0.2 + 0.5 * SCORES[index]
        climbs.enter("", replace(earlier, score=None, accuracy=accuracy), last=True)
    return climbs


def sieve(seed: int = 0, *, ratio: int = 4, explore: int = 1, climbs: Climbs | None = None) -> Prefilter:
    known = experience() if climbs is None else climbs
    return prefilter(score, judge, name="fake", rank=reward, ratio=ratio, explore=explore, seed=seed, climbs=known)


def test_the_first_students_are_judged_without_a_choice() -> None:
    first = sieve(climbs=Climbs())
    assert first.many(3) == 3
    found = first([student(index) for index in (0, 1, 2)])
    assert [one.accuracy for one in found] == [REWARDS[index] for index in (0, 1, 2)]
    assert all(draw.chance == 1 for draw in first.draws.values())
    first([student(index) for index in (3, 4, 5)])
    assert first.many(3) == 12, "six were judged"


def test_the_best_by_score_are_judged_and_one_by_chance() -> None:
    batch = [student(index) for index in range(ARMS)]
    found = sieve(ratio=4)(batch)
    judged = [arm(one) for one, told in zip(batch, found, strict=True) if not told.filtered]
    assert len(judged) == 2
    assert 1 in judged, "the highest score"
    for one, told in zip(batch, found, strict=True):
        assert told.status is Status.OK
        if told.filtered:
            assert told.accuracy is None
            assert told.score == SCORES[arm(one)]
            assert told.rung == "prefilter:fake"
            assert not told.settled
            assert told.expected == pytest.approx(0.2 + 0.5 * SCORES[arm(one)])  # the line, by hand
        else:
            assert told.expected == told.accuracy == REWARDS[arm(one)]
    best = sieve(ratio=4, explore=0)(batch)
    assert [arm(one) for one, told in zip(batch, best, strict=True) if not told.filtered] == [1, 3]


def test_the_chances_are_what_happens() -> None:
    batch = [student(index) for index in range(ARMS)]
    counts = np.zeros(ARMS)
    for seed in range(700):
        one = sieve(seed, ratio=2, explore=2)
        found = one(batch)
        counts += [not told.filtered for told in found]
        assert sum(not told.filtered for told in found) == 4
        chances = [one.draws[each.fingerprint].chance for each in batch]
        assert chances == [1.0 if SCORES[index] >= 0.8 else 2 / 6 for index in range(ARMS)]
    lucky = counts[[index for index in range(ARMS) if SCORES[index] < 0.8]]
    assert np.abs(lucky - 700 / 3).max() < 4 * (700 * 2 / 9) ** 0.5
    assert counts[1] == counts[3] == 700


def test_who_was_judged_is_known_and_who_is_refused_is_not_scored() -> None:
    one = sieve(ratio=2, explore=0)
    one([student(1), student(2)])  # of these the first is judged, for its score is higher

    def refuse(which: Architecture) -> Evaluation | None:
        cost = SPACE.cost(which)
        return not_ok(Status.INVALID, "no", which, cost, seconds=0.0, seed=0, fidelity="") if arm(which) == 7 else None

    found = one.refusing(refuse)([student(index) for index in (1, 7, 3, 4)])
    assert found[1].status is Status.INVALID
    assert student(7).fingerprint not in one.draws
    assert student(1).fingerprint not in one.draws, "it was judged before"
    assert found[0].accuracy == REWARDS[1]
    assert all(not told.filtered for told in found[2:]), "half of four rollouts are judged: both that are left"


def test_who_cannot_be_scored_is_not_judged() -> None:
    def broken(students: Sequence[Architecture]) -> list[Evaluation]:
        return [
            not_ok(Status.FAILED, "no score", one, SPACE.cost(one), seconds=0.0, seed=0, fidelity="")
            if arm(one) == 0
            else score([one])[0]
            for one in students
        ]

    one = prefilter(broken, judge, name="fake", rank=reward, ratio=2, climbs=experience())
    found = one([student(index) for index in range(4)])
    assert (found[0].status, found[0].reason, found[0].filtered) == (Status.FAILED, "no score", True)
    assert sum(told.accuracy is not None for told in found) == 2


def log_policy_gradients(logits: Tensor) -> Tensor:
    """grad log pi(a) by the logits of a softmax, by hand: e_a - pi, [A, A]."""
    return torch.eye(len(logits)) - torch.softmax(logits, 0)


def estimate(drawn: list[int], one: Prefilter) -> tuple[Trajectory, list[Evaluation]]:
    """What the stage makes of a batch of arms."""
    found = one([student(index) for index in drawn])
    shape = (1, len(drawn))
    raw = Trajectory(
        torch.zeros(*shape, 1, 1), torch.ones(*shape, ARMS, dtype=torch.bool), torch.tensor([drawn]),
        torch.tensor([reward(told) for told in found]),
    )  # fmt: skip
    expected = [reward(one.draws[told.fingerprint].expected) for told in found]
    return corrected(raw, found, one.draws, expected), found


def test_corrected_rewards_are_right_on_average_for_every_rollout() -> None:
    batch = [0, 1, 2, 2, 4, 5, 6, 7]
    found = torch.stack([estimate(batch, sieve(seed))[0].rewards for seed in range(1500)])  # [n, B]
    spread = found.std(dim=0) / len(found) ** 0.5
    wanted = torch.tensor([REWARDS[index] for index in batch])
    assert ((found.mean(dim=0) - wanted).abs() <= 4 * spread + 1e-6).all()
    assert found.std(dim=0).max() > 0.1, "those by chance are uncertain"


def test_the_gradient_is_that_of_the_mean_reward() -> None:
    logits = torch.tensor([0.3, -0.2, 0.1, 0.0, 0.5, -0.4, 0.2, -0.1])
    policy, steps = torch.softmax(logits, 0), log_policy_gradients(logits)
    exact = (policy * torch.tensor(REWARDS)) @ steps  # sum_a pi_a R_a grad log pi_a
    rng = np.random.default_rng(0)
    ours, naive, learned = [], [], experience()
    for seed in range(1500):
        drawn = rng.choice(ARMS, size=8, p=policy.double().numpy() / policy.double().sum().item()).tolist()
        trajectory, found = estimate(drawn, sieve(seed, climbs=copy.deepcopy(learned)))
        ours.append((trajectory.rewards[:, None] * steps[drawn]).mean(dim=0))
        raw = replace(trajectory, rewards=torch.tensor([reward(told) for told in found]))
        best = only_judged(raw, found)
        naive.append((best.rewards[:, None] * steps[best.actions[0]]).mean(dim=0))
    mean, error = torch.stack(ours).mean(dim=0), torch.stack(ours).std(dim=0) / len(ours) ** 0.5
    assert ((mean - exact).abs() < 4 * error).all(), (mean, exact, error)
    biased = torch.stack(naive)
    off = (biased.mean(dim=0) - exact).abs() / (biased.std(dim=0) / len(naive) ** 0.5)
    assert off.max() > 10, "learning from the chosen alone follows another gradient"


def test_a_reward_by_hand() -> None:
    drawn = Draw(0.25, said(student(0), score=0.1))
    held = replace(drawn.expected, rung="prefilter:fake")
    told = [said(student(0), accuracy=0.9), held, said(student(1), accuracy=0.3)]
    raw = Trajectory(
        torch.zeros(1, 3, 1, 1), torch.ones(1, 3, ARMS, dtype=torch.bool), torch.tensor([[0, 0, 1]]),
        torch.tensor([0.9, 0.4, 0.3]),
    )  # fmt: skip
    found = corrected(raw, told, {student(0).fingerprint: drawn}, [0.4, 0.4, 0.0])
    assert found.rewards.tolist() == pytest.approx([0.4 + 0.5 / 0.25, 0.4, 0.3])
    assert only_judged(raw, told).rewards.tolist() == pytest.approx([0.9, 0.3])
    assert only_judged(raw, told).actions.tolist() == [[0, 1]]


@pytest.mark.parametrize("options", [{"ratio": 1}, {"explore": -1}])
def test_what_makes_no_sense_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected a ratio of 2 or more and explore >= 0"):
        prefilter(score, judge, name="fake", rank=reward, **options)
