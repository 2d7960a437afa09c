"""What every agent owes its callers: `check_agent(build)` fails at the first broken promise.

`build(seed)` opens an agent for `SPACE`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from envs import StudentVectorEnv
from n2n.agents import Agent, Rollout, rollout
from search_spaces.base import FEATURES, Architecture
from search_spaces.toy import ToyArchitecture, toy

SPACE = toy(decisions=5, actions=3)
FEATURE_COUNT = len(FEATURES)


def total_width(students: Sequence[Architecture]) -> list[float]:
    """Judges by the share of the teacher's width, in [0, 1]."""
    return [sum(student.widths) / 60 for student in students if isinstance(student, ToyArchitecture)]


def open_env(batch: int) -> StudentVectorEnv:
    return StudentVectorEnv(SPACE, total_width, float, batch)


def check_agent(build: Callable[[int], Agent]) -> None:
    """Runs every check below."""
    check_rollouts(build(0))
    check_seeds(build)
    check_global_randomness(build)
    check_state(build)


def check_rollouts(agent: Agent) -> None:
    """Legal int64 actions for batches of any size, one after the other, and statistics that are true."""
    assert isinstance(agent, Agent)
    for batch in (4, 1, 3):
        trajectory, evaluations = rollout(open_env(batch), agent)
        assert trajectory.observations.shape == (5, batch, 6, FEATURE_COUNT)
        assert trajectory.actions.shape == (5, batch)
        assert trajectory.actions.dtype == torch.int64
        assert trajectory.legal.gather(-1, trajectory.actions.unsqueeze(-1)).all()
        assert trajectory.rewards.tolist() == pytest.approx(evaluations)
        stats = agent.learn(trajectory)
        assert stats["mean_reward"] == pytest.approx(sum(evaluations) / batch)
        assert stats["best_reward"] == pytest.approx(max(evaluations))
        assert all(isinstance(value, float) and value == value for value in dict(stats).values())


def check_seeds(build: Callable[[int], Agent]) -> None:
    """Equal seeds give equal runs."""
    one, other = [[play(agent) for _ in range(3)] for agent in (build(7), build(7))]
    for mine, theirs in zip(one, other, strict=True):
        assert torch.equal(mine.trajectory.actions, theirs.trajectory.actions)


def check_global_randomness(build: Callable[[int], Agent]) -> None:
    """Nothing is drawn from, or done to, torch's global generator; its number of threads stays."""
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    play(build(0))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def check_state(build: Callable[[int], Agent]) -> None:
    """Weights move to another agent by `state` and `load`; a wrong set is refused by name."""
    agent = build(0)
    for _ in range(2):
        play(agent)
    state = agent.state()
    other = build(1)
    other.load(state)
    copied = other.state()
    assert copied.keys() == state.keys()
    for name, value in state.items():
        assert torch.equal(copied[name], value)
        assert not value.requires_grad
        value.zero_()  # a copy: the agent does not change
        assert not torch.equal(value, agent.state()[name]) or not agent.state()[name].any()
    with pytest.raises(ValueError, match="stranger"):
        other.load({"stranger": torch.zeros(1)})


def play(agent: Agent) -> Rollout:
    """One batch of four students, learned from."""
    played = rollout(open_env(4), agent)
    agent.learn(played.trajectory)
    return played
