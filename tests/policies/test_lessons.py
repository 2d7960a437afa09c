"""Policies that are taught what searches found: what a lesson holds, what imitation is by hand, what it brings."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import fmean

import numpy as np
import pytest
import torch
from perceptron_task import agents, task

from envs import Goal, drawn_goals
from n2n.agents import AGENTS
from n2n.agents.actor_critic import ActorCriticAgent
from n2n.agents.base import Agent, Trajectory
from n2n.policies.lessons import READINESS, STAGES, kept, lessons, teach
from n2n.policies.training import Task, zero_shot
from search_spaces.base import FEATURES

SMALL = {"each": 2, "batches": 3, "students": 4, "keep": 3}


def used(policies: dict[str, Agent], on: Task) -> float:
    """Which share of what was asked for the likeliest students use, on average."""
    goals = drawn_goals(np.random.default_rng(9), least=0.2, most=0.7, macs=0.0)(12)
    return fmean(zero_shot(policies, on, goal).parameters / on.parameters / goal.parameters for goal in goals)


def test_a_lesson_is_the_best_of_a_search_and_the_policy_stays_as_it_is() -> None:
    made, on = agents(hidden=8), [task(32, 32, name="two"), task(24, 24, 16, name="three")]
    before = {stage: agent.state() for stage, agent in made.items()}
    for stage in STAGES:
        found = list(lessons(made, on, stage, **SMALL, seed=0, least=0.2, most=0.7))
        assert [one.task for one in found] == ["two", "three"] * 2
        assert {one.stage for one in found} == {stage}
        for one in found:
            rewards = one.rollouts.rewards
            assert len(rewards) == one.rollouts.actions.shape[1] <= 3
            assert one.best == float(rewards.max()) >= one.at_once
            asked = one.goal.parameters or one.goal.macs
            assert torch.allclose(one.rollouts.observations.amax(), torch.ones(()))
            assert any(torch.isclose(one.rollouts.observations, torch.tensor(asked)).flatten())  # the policy is told
        again = list(lessons(made, on, stage, **SMALL, seed=0, least=0.2, most=0.7))
        assert [torch.equal(one.rollouts.actions, other.rollouts.actions) for one, other in
                zip(found, again, strict=True)] == [True] * 4  # fmt: skip
    for stage, agent in made.items():
        assert all(torch.equal(value, before[stage][name]) for name, value in agent.state().items())


def test_one_step_of_imitation_by_hand() -> None:
    agent = AGENTS["ppo"](len(FEATURES), 4, 2, seed=0, learning_rate=0.1)
    assert isinstance(agent, ActorCriticAgent)
    with torch.no_grad():
        agent.network.policy.weight.zero_()  # logits are the biases, and all alike
    legal = torch.tensor([[[True] * 4], [[False, True, False, False]]])  # the second decision leaves no choice
    shown = Trajectory(torch.zeros(2, 1, 3, len(FEATURES)), legal, torch.tensor([[2], [1]]), torch.ones(1))
    assert agent.imitate(shown) == pytest.approx(math.log(4))
    # Adam's first step is its rate, against the sign of the gradient: 1/4 where it is not wished for, -3/4 where it is.
    assert agent.network.policy.bias.tolist() == pytest.approx([-0.1, -0.1, 0.1, -0.1], abs=1e-5)
    assert agent.imitate(shown) < math.log(4)
    forced = Trajectory(shown.observations[1:], legal[1:], shown.actions[1:], shown.rewards)
    assert agent.imitate(forced) == 0


def test_what_searches_found_carries_over_to_another_network() -> None:
    on, held_back = [task(32, 32, name="two"), task(48, 24, 24, name="three")], task(40, 40, 20)
    made = agents(hidden=16, learning_rate=5e-3)
    before = used(made, held_back)
    for number in range(2):
        found = list(lessons(made, on, "shrinkage", each=6, batches=4, students=8, keep=2, seed=number, least=0.2,
                             most=0.7))  # fmt: skip
        assert fmean(one.best for one in found) > fmean(one.at_once for one in found)
        losses = teach(made, found, epochs=15, seed=number)
        assert losses[-1] < losses[0]
    assert used(made, held_back) > max(0.85, before)


def test_weights_may_be_averaged_over_the_second_half_of_the_epochs() -> None:
    on = [task(32, 32)]
    (lesson,) = lessons(agents(hidden=8), on, "shrinkage", each=1, batches=1, students=2, keep=1, seed=0)
    after = []  # as many epochs
    for epochs in (2, 3, 4):
        made = agents(hidden=8)
        losses = teach(made, [lesson], epochs=epochs, seed=0)
        assert len(losses) == epochs
        after.append(made["shrinkage"].state())
    averaged = agents(hidden=8)
    assert teach(averaged, [lesson], epochs=4, seed=0, averaged=True) == losses
    for name, value in averaged["shrinkage"].state().items():
        assert torch.allclose(value, (after[1][name] + after[2][name]) / 2)
    assert any(not torch.allclose(value, after[2][name]) for name, value in averaged["shrinkage"].state().items())


def test_how_many_layers_to_keep_is_searched_in_the_order_of_the_policy() -> None:
    on = [task(32, 32, name="two"), task(24, 24, 16, name="three")]
    made = agents(hidden=8, learning_rate=5e-3)
    removal = made["removal"]
    assert isinstance(removal, ActorCriticAgent)
    with torch.no_grad():
        removal.network.policy.bias[-1] -= 4.5  # it rather removes; students that keep their layers are worth more here
    before = removal.state()
    goals = {"each": 3, "seed": 0, "least": 0.3, "most": 0.7}
    found = list(kept(made, on, readiness=(0.0, -1.0, 9.0), **goals))
    assert [one.task for one in found] == ["two", "three"] * 3
    assert all(torch.equal(value, before[name]) for name, value in removal.state().items())
    for one in found:
        assert one.stage == "removal"
        assert one.rollouts.actions.shape[1] == 1  # the best of a goal alone
        assert bool((one.rollouts.actions == 1).all())  # every layer is kept
        assert one.best > one.at_once
    again = list(kept(made, on, readiness=(0.0, -1.0), **goals))
    assert [one.best for one in again] == [one.at_once for one in found]
    assert not any(one.rollouts.actions.any() for one in again)
    teach(made, found, epochs=30, seed=0)
    assert all(one.at_once == one.best for one in kept(made, on, readiness=(0.0, 9.0), **goals))
    assert 0.0 in READINESS


def refuse(change: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        change()


def test_what_cannot_be_taught_is_refused() -> None:
    made, on = agents(hidden=8), [task(16, 16)]
    refuse(lambda: list(lessons(made, on, "shrinkage", **{**SMALL, "keep": 0}, seed=0)), "keep=0")
    refuse(lambda: list(lessons(made, [], "shrinkage", **SMALL, seed=0)), "at least one task")
    (lesson,) = lessons(made, on, "shrinkage", each=1, batches=1, students=2, keep=1, seed=0, least=0.4, most=0.6)
    other = AGENTS["reinforce"](len(FEATURES), 4, 1, seed=0)
    refuse(lambda: teach({"shrinkage": other}, [lesson], epochs=1, seed=0), "cannot imitate")
    assert isinstance(lesson.goal, Goal)
    refuse(lambda: list(kept({**made, "removal": other}, on, each=1, seed=0)), "cannot imitate")
    refuse(lambda: list(kept(made, on, each=0, seed=0)), "each=0")
