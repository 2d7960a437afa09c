from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from agent_contract import FEATURE_COUNT, open_env

from n2n.agents import rollout
from n2n.agents.sb3_ppo import sb3_ppo, summary
from search_spaces.base import CURSOR, FEATURES


def test_summary_is_of_a_size_that_does_not_depend_on_the_layers() -> None:
    observation = torch.zeros(2, 4, FEATURE_COUNT)
    observation[:, :, 0] = torch.tensor([1.0, 2.0, 3.0, 6.0])
    observation[:, 2, CURSOR] = 1
    observation[:, :2, FEATURES.index("decided")] = 1
    seen = summary(observation)
    assert seen.shape == (2, 3 * FEATURE_COUNT)
    assert seen[0, [0, FEATURE_COUNT, 2 * FEATURE_COUNT]].tolist() == [3.0, 3.0, 1.5]


def test_global_generators_are_left_alone() -> None:
    before = (np.random.get_state()[1].copy(), torch.get_rng_state(), random.getstate())  # type: ignore[index,union-attr]
    agent = sb3_ppo(FEATURE_COUNT, 3, 5, seed=0)
    agent.learn(rollout(open_env(2), agent).trajectory)
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])
    assert torch.equal(torch.get_rng_state(), before[1])
    assert random.getstate() == before[2]


def test_it_learns_from_its_own_rollout_only() -> None:
    agent = sb3_ppo(FEATURE_COUNT, 3, 5, seed=0)
    trajectory = rollout(open_env(2), agent).trajectory
    agent.learn(trajectory)
    with pytest.raises(ValueError, match="act was called 0 times"):
        agent.learn(trajectory)


def test_learning_moves_the_policy_and_the_value() -> None:
    agent = sb3_ppo(FEATURE_COUNT, 3, 5, seed=0)
    before = agent.state()
    agent.learn(rollout(open_env(4), agent).trajectory)
    after = agent.state()
    unmoved = [name for name in before if torch.equal(before[name], after[name])]
    assert unmoved == []
