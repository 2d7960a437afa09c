"""Policies that act and never learn: alone, and as what evolution draws from."""

from __future__ import annotations

import math

import pytest
import torch
from agent_contract import FEATURE_COUNT, check_agent
from torch import Tensor

from envs import StudentVectorEnv
from n2n.agents import AGENTS, PROPOSING, rollout
from n2n.agents.base import Learned
from n2n.agents.evolution import evolution
from n2n.agents.frozen import FrozenAgent
from n2n.agents.policies import Memory
from search_spaces.toy import toy


class Always:
    """A policy that gives its actions the same probabilities at every decision, and notes what it was told."""

    def __init__(self, *probabilities: float) -> None:
        self.logits = torch.tensor(probabilities).log()
        self.previous: list[Tensor] = []
        self.begun = 0

    def step(self, observation: Tensor, previous: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
        self.begun += memory is None
        self.previous.append(previous)
        return self.logits.expand(len(observation), -1), Memory()


def test_it_keeps_the_promises_of_agents() -> None:
    check_agent(lambda seed: FrozenAgent(Always(0.5, 0.3, 0.2), 3, 5, seed=seed))


def test_the_likeliest_student_comes_first_and_none_twice() -> None:
    space, agent = toy(decisions=2, actions=2), FrozenAgent(Always(0.3, 0.7), 2, 2, seed=0)
    env = StudentVectorEnv(space, lambda students: [0.0] * len(students), float, 1)
    played = []
    for _ in range(3):
        trajectory, _ = rollout(env, agent)
        agent.learn(trajectory)
        played += trajectory.actions.T.tolist()
    assert played[0] == [1, 1]
    assert sorted(played) == [[0, 1], [1, 0], [1, 1]], "two narrowest may not follow each other"


@pytest.mark.parametrize("name", PROPOSING)
def test_it_acts_with_the_policy_of_a_learner(name: str) -> None:
    learner = AGENTS[name](FEATURE_COUNT, 3, 5, seed=0)
    assert isinstance(learner, Learned)
    before = learner.state()
    agent = FrozenAgent(learner.acting, 3, 5, seed=1)
    env = StudentVectorEnv(toy(decisions=5, actions=3), lambda students: [1.0] * len(students), float, 3)
    for _ in range(2):
        agent.learn(rollout(env, agent).trajectory)
    assert agent.state() == {}
    assert all(torch.equal(value, learner.state()[key]) for key, value in before.items())


def test_what_is_proposed_is_drawn_four_times_of_five() -> None:
    policy = Always(0.7, 0.2, 0.1)
    agent = evolution(1, 3, 2, seed=0, proposal=policy)
    agent.reset(4000)
    drawn = agent.act(torch.zeros(4000, 1, 1), torch.ones(4000, 3, dtype=torch.bool))
    expected = [4000 * (0.8 * share + 0.2 / 3) for share in (0.7, 0.2, 0.1)]
    for count, mean in zip(torch.bincount(drawn, minlength=3).tolist(), expected, strict=True):
        assert abs(count - mean) < 4 * math.sqrt(mean)
    agent.act(torch.zeros(4000, 1, 1), torch.ones(4000, 3, dtype=torch.bool))
    assert policy.begun == 1, "the memory goes on within a rollout"
    assert torch.equal(policy.previous[0], torch.zeros(4000, 3))
    assert torch.equal(policy.previous[1].argmax(1), drawn)


def test_mutations_are_proposed_too_and_change_something() -> None:
    agent = evolution(1, 3, 1, seed=0, population=2, tournament=1, proposal=Always(0.7, 0.2, 0.1))
    env = StudentVectorEnv(toy(decisions=1, actions=3), lambda students: [1.0] * len(students), float, 2)
    parents = {0}
    while parents != {2}:  # until both parents play 2
        trajectory, _ = rollout(env, agent)
        parents = set(trajectory.actions.flatten().tolist())
        agent.learn(trajectory)
    agent.reset(3000)
    legal = torch.ones(3000, 3, dtype=torch.bool)
    drawn = torch.bincount(agent.act(torch.zeros(3000, 1, 1), legal), minlength=3).tolist()
    zero, one = 0.8 * 0.7 + 0.2 / 3, 0.8 * 0.2 + 0.2 / 3  # 2 is what the parent has
    assert drawn[2] == 0
    assert abs(drawn[0] - 3000 * zero / (zero + one)) < 4 * math.sqrt(3000 * 0.26 * 0.74)


def test_masked_actions_are_never_proposed() -> None:
    agent = evolution(1, 3, 1, seed=0, proposal=Always(0.98, 0.01, 0.01))
    agent.reset(200)
    legal = torch.tensor([[False, True, True]]).expand(200, -1)
    assert not (agent.act(torch.zeros(200, 1, 1), legal) == 0).any()
