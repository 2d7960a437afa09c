from __future__ import annotations

from collections.abc import Sequence

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from envs import IllegalAction, StudentEnv, StudentVectorEnv
from envs.registration import size_evaluate, size_reward
from search_spaces.base import Architecture
from search_spaces.toy import ToyArchitecture, toy


class Judge:
    """Scores by total width and keeps what it was asked."""

    def __init__(self) -> None:
        self.calls: list[list[Architecture]] = []

    def __call__(self, students: Sequence[Architecture]) -> list[float]:
        self.calls.append(list(students))
        return [float(sum(student.widths)) for student in students if isinstance(student, ToyArchitecture)]


def test_one_evaluate_call_judges_the_batch() -> None:
    judge = Judge()
    env = StudentVectorEnv(toy(decisions=2, actions=3, width=12), judge, lambda evaluation: evaluation, 3)
    assert env.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    observations, info = env.reset()
    assert observations.shape == (3, *env.single_observation_space.shape)
    assert info["legal"].shape == (3, 3)
    _, rewards, terminated, _, _ = env.step(np.array([1, 2, 1]))
    assert rewards.tolist() == [0, 0, 0]
    assert not terminated.any()
    assert judge.calls == []
    observations, rewards, terminated, truncated, info = env.step(np.array([0, 1, 2]))
    assert rewards.tolist() == [8 + 4, 12 + 8, 8 + 12]
    assert terminated.all()
    assert not truncated.any()
    assert len(judge.calls) == 1
    assert judge.calls[0] == info["architecture"].tolist()
    assert info["evaluation"].tolist() == rewards.tolist()
    assert observations in env.observation_space


def test_agrees_with_single_environments() -> None:
    space = toy(decisions=4, actions=3)
    vector = StudentVectorEnv(space, size_evaluate(space), size_reward, 4)
    singles = [StudentEnv(space, size_evaluate(space), size_reward) for _ in range(4)]
    vector.action_space.seed(3)
    observations, _ = vector.reset(seed=0)
    np.testing.assert_array_equal(observations, np.stack([env.reset()[0] for env in singles]))
    for _ in range(4):
        actions = vector.action_space.sample()
        observations, rewards, terminated, _, info = vector.step(actions)
        steps = [env.step(action) for env, action in zip(singles, actions, strict=True)]
        np.testing.assert_array_equal(observations, np.stack([step[0] for step in steps]))
        assert rewards.tolist() == [step[1] for step in steps]
        assert terminated.tolist() == [step[2] for step in steps]
        np.testing.assert_array_equal(info["legal"], np.stack([step[4]["legal"] for step in steps]))
    assert info["architecture"].tolist() == [step[4]["architecture"] for step in steps]


def test_an_illegal_action_moves_no_draft() -> None:
    space = toy(actions=3)
    env = StudentVectorEnv(space, size_evaluate(space), size_reward, 2)
    env.reset()
    with pytest.raises(IllegalAction, match=r"layer0.*\[1, 2\]"):
        env.step(np.array([2, 0]))
    observations, *_ = env.step(np.array([2, 2]))
    np.testing.assert_array_equal(observations[0], space.observe(space.apply(space.initial(), 2)))


def test_steps_outside_an_episode_and_wrong_shapes_are_refused() -> None:
    space = toy(decisions=1)
    env = StudentVectorEnv(space, size_evaluate(space), size_reward, 2)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.array([2, 2]))
    env.reset()
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        env.step(np.array([2]))
    env.step(np.array([2, 2]))
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.array([2, 2]))
    with pytest.raises(ValueError, match="move in step"):
        env.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(ValueError, match="at least 1"):
        StudentVectorEnv(space, size_evaluate(space), size_reward, 0)


def test_a_missing_evaluation_is_noticed() -> None:
    env = StudentVectorEnv(toy(decisions=1), lambda students: [0.5], float, 2)
    env.reset()
    with pytest.raises(ValueError, match="2 students and returned 1"):
        env.step(np.array([2, 2]))
