from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from agent_contract import FEATURE_COUNT, check_agent, open_env

from envs import StudentVectorEnv
from n2n.agents import AGENTS, rollout
from n2n.agents.actor_critic import BASELINES
from n2n.agents.base import nearest_legal
from n2n.agents.encoders import ENCODERS
from n2n.agents.uniform import levels, spread
from search_spaces import base
from search_spaces.base import FEATURES
from search_spaces.toy import ToySpace, toy

BUILDS = {
    **{name: (name, {}) for name in AGENTS},
    "reinforce-removal": ("reinforce", {"policy": "removal"}),
    "reinforce-shrinkage": ("reinforce", {"policy": "shrinkage", "normalise": False}),
    **{f"ppo-{name}": ("ppo", {"encoder": name, "imitation_weight": 0.3}) for name in ENCODERS},
    **{f"actor_critic-{name}": ("actor_critic", {"encoder": name}) for name in ENCODERS},
    **{f"ppo-{name}": ("ppo", {"baseline": name, "scale": "standard"}) for name in BASELINES},
    "ppo-repeats": ("ppo", {"repeats": True}),
}


@pytest.mark.parametrize("case", sorted(BUILDS))
def test_meets_the_contract(case: str) -> None:
    name, options = BUILDS[case]
    check_agent(lambda seed: AGENTS[name](FEATURE_COUNT, 3, 5, seed=seed, **options))


def best_found(name: str, space: ToySpace, seed: int, batches: int, **options: object) -> tuple[float, float]:
    """The best score that an agent found, and the best there is, by looking at all students.

    The score is the mean of two shares: decisions that hit a hidden student, and closeness to it.
    """
    students = list(space.all())
    hidden = np.array(space.actions_of(students[np.random.default_rng(seed + 100).integers(len(students))]))

    def score(student: base.Architecture) -> float:
        miss = np.abs(np.array(space.actions_of(student)) - hidden)
        return float(((miss == 0).mean() + 1 - (miss / (space.num_actions - 1)).mean()) / 2)

    optimum = max(score(student) for student in students)
    env = StudentVectorEnv(space, lambda students: [score(student) for student in students], float, 8)
    agent = AGENTS[name](len(FEATURES), space.num_actions, space.num_decisions, seed=seed, **options)
    best = 0.0
    for _ in range(batches):
        played = rollout(env, agent)
        agent.learn(played.trajectory)
        best = max(best, *played.evaluations)
        if best == optimum:
            break
    return best, optimum


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("reinforce", {"policy": "removal"}),
        ("reinforce", {"policy": "shrinkage"}),
        ("evolution", {}),
        ("ppo", {}),
        ("actor_critic", {}),
        ("sb3_ppo", {}),
    ],
    ids=["removal", "shrinkage", "evolution", "ppo", "actor_critic", "sb3_ppo"],
)
def test_learners_reach_the_enumerated_optimum(name: str, options: dict[str, object]) -> None:
    space = toy(decisions=5, actions=4)  # 648 students, of which at most 480 are looked at
    found = [best_found(name, space, seed, 60, **options) for seed in range(10)]
    assert sum(best == optimum for best, optimum in found) >= 9, found


def test_the_removal_policy_reaches_the_optimum_of_two_actions() -> None:
    space = toy(decisions=8, actions=2)
    found = [best_found("reinforce", space, seed, 60) for seed in range(10)]
    assert sum(best == optimum for best, optimum in found) >= 9, found


def test_chance_alone_does_not_reach_it() -> None:
    space = toy(decisions=5, actions=4)
    found = [best_found("random", space, seed, 30) for seed in range(10)]
    assert sum(best == optimum for best, optimum in found) <= 7, found


@pytest.mark.parametrize("policy", ["removal", "shrinkage"])
def test_reinforce_moves_its_mean_reward(policy: str) -> None:
    env = open_env(8)
    agent = AGENTS["reinforce"](FEATURE_COUNT, 3, 5, seed=0, policy=policy, entropy_weight=0.0, learning_rate=0.02)
    rewards = [agent.learn(rollout(env, agent).trajectory)["mean_reward"] for _ in range(40)]
    assert rewards[0] < 0.8
    assert np.mean(rewards[-3:]) > 0.95  # all layers wide is the best under this judge


@pytest.mark.parametrize("batch", [1, 3])
def test_nearest_legal_agrees_with_the_spaces_own(batch: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        masks = rng.random((batch, 6)) < 0.4
        masks[:, -1] = True
        wishes = rng.integers(6, size=batch)
        expected = [base.nearest_legal(mask, int(wish)) for mask, wish in zip(masks, wishes, strict=True)]
        assert nearest_legal(torch.from_numpy(masks), torch.from_numpy(wishes)).tolist() == expected


def test_random_is_uniform_over_the_legal_actions() -> None:
    agent = AGENTS["random"](1, 4, 1, seed=0)
    legal = torch.tensor([[True, False, True, True]]).expand(6000, 4)
    counts = torch.bincount(agent.act(torch.zeros(6000, 1, 1), legal), minlength=4)
    assert counts[1] == 0
    assert (counts[[0, 2, 3]] - 2000).abs().max() < 200  # five standard deviations


def test_levels_go_down_then_halve() -> None:
    assert [str(level) for level in islice(levels(4), 6)] == ["2", "1", "0", "5/2", "3/2", "1/2"]
    assert [str(level) for level in islice(levels(2), 4)] == ["0", "1/2", "3/4", "1/4"]
    many = list(islice(levels(3), 200))
    assert len(set(many)) == 200
    assert all(0 <= level < 2 for level in many)


def test_a_level_is_spread_evenly() -> None:
    for level in islice(levels(4), 20):
        actions = [spread(level, decision) for decision in range(level.denominator)]
        assert sum(actions) == level * level.denominator
        assert max(actions) - min(actions) <= 1


def test_uniform_plays_one_level_per_student() -> None:
    space = toy(decisions=3, actions=4, width=12, first_needs_half=False)
    env = StudentVectorEnv(space, lambda students: [0.0] * len(students), float, 3)
    agent = AGENTS["uniform"](len(FEATURES), 4, 3, seed=0)
    actions = rollout(env, agent).trajectory.actions.T.tolist()
    assert actions == [[2, 2, 2], [1, 1, 1], [0, 1, 0]]  # two narrowest may not follow each other
