"""Policies that are trained on several networks and goals, against what is best by construction."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from statistics import fmean

import numpy as np
import pytest
from perceptron_task import agents, task

from envs import Goal, drawn_goals
from envs.goals import NO_GOAL, Goals
from n2n.agents.base import Agent, Learned
from n2n.evaluate.base import Status
from n2n.policies import training
from n2n.policies.training import LOST, Completed, Task, played, train, trainee, zero_shot
from n2n.reward import Budget
from search_spaces.base import Architecture, SpaceError


def used(policies: dict[str, Agent], on: Task, least: float, most: float, many: int = 12) -> float:
    """Which share of what was asked for the likeliest students use, on average."""
    goals = drawn_goals(np.random.default_rng(9), least=least, most=most)
    shares: list[float] = []
    while len(shares) < many:
        (goal,) = goals(1)
        try:
            found = zero_shot(policies, on, goal)
        except SpaceError:
            continue
        share = (
            found.parameters / on.parameters / goal.parameters if goal.parameters else found.macs / on.macs / goal.macs
        )
        assert share <= 1 + 1e-9, "the goal binds"
        shares.append(share)
    return fmean(shares)


def test_it_learns_what_is_worth_most_and_carries_it_to_another_network() -> None:
    trained, held_back = [task(32, 32, name="two"), task(48, 24, 24, name="three")], task(40, 40, 20)
    made = agents(learning_rate=1e-2, hidden=16)
    before = used(made, held_back, 0.15, 0.7)
    batches = list(train(made, trained, batches=120, students=6, seed=0, least=0.15, most=0.7))
    after = used(made, held_back, 0.15, 0.7)
    assert {one.task for one in batches} == {"two", "three"}
    assert {one.stage for one in batches} == {"removal", "shrinkage"}
    assert after > 0.85
    assert after > before + 0.05


def test_the_same_seed_gives_the_same_training() -> None:
    rewards = []
    for _ in range(2):
        made = agents(hidden=8)
        rewards.append([(one.task, one.stage, one.goal, one.rewards) for one in
                        train(made, [task(16, 16)], batches=4, students=2, seed=3)])  # fmt: skip
    assert rewards[0] == rewards[1]


def test_removal_is_judged_by_what_shrinkage_makes_of_it() -> None:
    on, made = task(32, 32), agents(hidden=8)
    goal = Goal(parameters=0.3)
    removal = on.spaces.removal(Budget())
    judge = Completed(removal, on, goal, made["shrinkage"])
    student = played(made["removal"], removal, goal, likeliest=True)
    (found,) = judge([student])
    space = on.spaces.shrinkage(student, on.budget(goal))
    assert found.fingerprint == played(made["shrinkage"], space, goal, likeliest=True).fingerprint
    assert found.status is Status.OK
    assert found.parameters <= 0.3 * on.parameters
    impossible = Completed(removal, on, Goal(parameters=0.001), made["shrinkage"])
    (refused,) = impossible([student])
    assert refused.status is Status.INVALID
    assert on.reward(refused) == LOST


def test_agents_that_are_not_told_the_goal_are_bound_by_it_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Goal] = []
    always = training.always

    def recorded(goal: Goal) -> Goals:
        shown.append(goal)
        return always(goal)

    monkeypatch.setattr(training, "always", recorded)
    told, untold = task(32, 32), dataclasses.replace(task(32, 32), tells=False)
    for on in (told, untold):
        shown.clear()
        made = agents(hidden=8)
        batches = list(train(made, [on], batches=6, students=2, seed=3))
        assert zero_shot(made, on, Goal(parameters=0.3)).parameters <= 0.3 * on.parameters
        assert {one.goal for one in batches}.isdisjoint(shown) == (on is untold)
        assert (set(shown) == {NO_GOAL}) == (on is untold)


def test_a_goal_is_a_bound() -> None:
    on = task(16, 16)
    assert on.budget(Goal(macs=0.5)) == Budget(max_macs=0.5 * on.macs)
    assert on.budget(Goal(parameters=0.5)) == Budget(max_parameters=0.5 * on.parameters)


def refuse(change: Callable[[], object], words: str, error: type[Exception] = ValueError) -> None:
    with pytest.raises(error, match=words):
        change()


def test_what_cannot_be_trained_is_refused() -> None:
    class Closed:
        """An agent without a policy to act with."""

    on = task(16, 16)
    refuse(lambda: list(train(agents(), [on], batches=1, students=2, seed=0, least=0.5, most=0.1)), "0 < least <= most")
    refuse(lambda: list(train(agents(), [on], batches=1, students=1, seed=0)), "students >= 2")
    refuse(lambda: list(train({"shrinkage": Closed()}, [on], batches=1, students=2, seed=0)), "keeps its policy")  # type: ignore[dict-item]
    tiny = {"least": 0.0001, "most": 0.0002}
    refuse(lambda: list(train(agents(), [on], batches=1, students=2, seed=0, **tiny)), "none of 20 goals", SpaceError)


def test_a_trainee_learns_from_ranks_within_its_batch() -> None:
    agent = trainee("shrinkage", 4, seed=0, encoder="attention", hidden=8)
    assert isinstance(agent, Learned)
    on = task(16, 16)
    space = on.spaces.shrinkage(None, Budget())
    students: list[Architecture] = [played(agent, space, Goal()) for _ in range(3)]
    assert len({one.fingerprint for one in students}) > 1, "it draws"
