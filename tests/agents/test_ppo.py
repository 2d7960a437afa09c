from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from agent_contract import FEATURE_COUNT, SPACE, open_env

from envs import StudentVectorEnv
from n2n.agents import Trajectory, rollout
from n2n.agents.actor_critic import ActorCriticAgent, actor_critic
from n2n.agents.elite import Elite
from n2n.agents.encoders import ENCODERS
from n2n.agents.policies import one_hot_previous
from n2n.agents.ppo import ppo
from n2n.agents.tried import Tried
from search_spaces.toy import toy

BUILDERS: list[Callable[..., ActorCriticAgent]] = [ppo, actor_critic]


def log_likelihood(agent: ActorCriticAgent, trajectory: Trajectory) -> torch.Tensor:
    logits, _ = agent.network.all_steps(trajectory.observations, one_hot_previous(trajectory.actions, 3))
    drawn = torch.distributions.Categorical(logits=logits.masked_fill(~trajectory.legal, -1e9))
    return drawn.log_prob(trajectory.actions).sum(0).detach()


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_every_parameter_moves(encoder: str) -> None:
    agent = ppo(FEATURE_COUNT, 3, 5, seed=0, encoder=encoder)
    before = agent.state()
    for _ in range(2):
        agent.learn(rollout(open_env(4), agent).trajectory)
    unmoved = [name for name, value in agent.state().items() if torch.equal(before[name], value)]
    # Softmax does not change when all its logits get the same: the part of a bias that keys have in common is idle.
    assert [name for name in unmoved if name != "encoder.key.bias"] == []


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("baseline", ["value", "average", "leave_one_out"])
def test_good_rollouts_become_likelier_and_bad_ones_less(build: Callable[..., Any], baseline: str) -> None:
    agent = build(FEATURE_COUNT, 3, 5, seed=0, baseline=baseline, entropy_weight=0.0, learning_rate=1e-3,
                  imitation_weight=0.0)  # fmt: skip
    made = rollout(open_env(2), agent).trajectory
    judged = Trajectory(made.observations, made.legal, made.actions, torch.tensor([1.0, 0.0]))
    before = log_likelihood(agent, judged)
    agent.learn(judged)
    change = log_likelihood(agent, judged) - before
    assert change[0] > 0 > change[1]


def test_imitation_alone_makes_the_best_likelier() -> None:
    agent = ppo(FEATURE_COUNT, 3, 5, seed=0, entropy_weight=0.0, imitation_weight=1.0, elite=1, learning_rate=1e-3,
                gae_decay=1.0)  # fmt: skip
    made = rollout(open_env(3), agent).trajectory
    best = Trajectory(made.observations, made.legal, made.actions, torch.tensor([0.0, 1.0, 0.0]))
    agent.learn(best)
    low = Trajectory(made.observations[:, :1], made.legal[:, :1], made.actions[:, :1], torch.tensor([0.5]))
    before = log_likelihood(agent, best)[1]
    for _ in range(5):
        agent.learn(low)
    assert log_likelihood(agent, best)[1] > before


def test_the_value_head_learns_what_to_expect() -> None:
    agent = ppo(FEATURE_COUNT, 3, 5, seed=0, scale="standard", entropy_weight=5.0, learning_rate=3e-3)
    env = open_env(8)
    for _ in range(60):
        made = rollout(env, agent).trajectory
        agent.learn(made)
    made = rollout(env, agent).trajectory
    with torch.no_grad():
        _, values = agent.network.all_steps(made.observations, one_hot_previous(made.actions, 3))
    # Once all is decided, the value knows the widths; before, it does not.
    late = np.corrcoef(values[-1].numpy(), made.rewards.numpy())[0, 1]
    assert late > 0.5


def test_the_first_epoch_is_the_actor_critic_gradient() -> None:
    """With one epoch PPO is the plain actor-critic; the gradient is compared with one written out here."""
    agent = ppo(FEATURE_COUNT, 3, 5, seed=0, epochs=1, baseline="leave_one_out", scale="standard", entropy_weight=0.0,
                imitation_weight=0.0, max_gradient_norm=1e9)  # fmt: skip
    made = rollout(open_env(3), agent).trajectory
    logits, _ = agent.network.all_steps(made.observations, one_hot_previous(made.actions, 3))
    masks = torch.stack(agent.draws.open)
    taken = torch.distributions.Categorical(logits=logits.masked_fill(~masks, -1e9)).log_prob(made.actions)  # [T, B]
    scaled = (made.rewards - made.rewards.mean()) / (made.rewards.std(unbiased=False) + 1e-3)
    others = torch.stack([(scaled.sum() - one) / 2 for one in scaled])
    expected = torch.autograd.grad(-((scaled - others) * taken).mean(), agent.network.policy.weight)[0]
    agent.learn(made)
    found = agent.network.policy.weight.grad
    assert found is not None
    torch.testing.assert_close(found, expected)


def test_an_untrained_policy_is_nearly_uniform() -> None:
    agent = ppo(FEATURE_COUNT, 3, 5, seed=0)
    stats = agent.learn(rollout(open_env(6), agent).trajectory)
    # Two of five masks forbid one of three actions at times, so the mean lies below ln 3.
    assert math.log(2) < stats["entropy"] <= math.log(3) + 1e-6


def test_keep_bias_keeps() -> None:
    agent = ppo(FEATURE_COUNT, 3, 5, seed=0, keep_bias=6.0, repeats=True)
    assert (rollout(open_env(20), agent).trajectory.actions == 2).float().mean() > 0.95


def test_no_student_is_played_twice_until_all_were() -> None:
    space = toy(decisions=3, actions=3)
    count = sum(1 for _ in space.all())
    agent = ppo(FEATURE_COUNT, 3, 3, seed=0)
    env = StudentVectorEnv(space, lambda students: [0.5] * len(students), float, 1)
    played: list[tuple[int, ...]] = []
    for _ in range(count):
        made = rollout(env, agent).trajectory
        agent.learn(made)
        played += [tuple(actions) for actions in made.actions.T.tolist()]
    assert len(set(played)) == count
    rollout(env, agent)  # nothing is left, so that repeats are allowed again


def test_the_drafts_of_a_batch_become_different_students() -> None:
    agent = ppo(FEATURE_COUNT, 3, 5, seed=0)
    actions = rollout(open_env(12), agent).trajectory.actions.T.tolist()
    assert len({tuple(one) for one in actions}) == 12


def test_with_repeats_some_come_twice() -> None:
    space = toy(decisions=2, actions=3)
    agent = ppo(FEATURE_COUNT, 3, 2, seed=0, repeats=True)
    env = StudentVectorEnv(space, lambda students: [0.5] * len(students), float, 20)
    actions = rollout(env, agent).trajectory.actions.T.tolist()
    assert len({tuple(one) for one in actions}) < 20


def test_what_leads_to_nothing_new_is_closed() -> None:
    tried = Tried()
    legal = torch.tensor([[True, True], [False, True]])  # after 0, only 1 is legal
    tried.add([0, 1], legal)
    assert tried.left([], legal[0]).tolist() == [False, True]
    assert [0, 1] in tried
    assert () not in tried
    both = torch.tensor([[True, True], [True, True]])
    tried.add([1, 0], both)
    assert tried.left([1], both[1]).tolist() == [False, True]
    assert tried.left([], both[0]).tolist() == [False, True]
    tried.add([1, 1], both)
    assert () in tried
    assert tried.left([], both[0]).tolist() == [True, True]


def test_the_elite_are_the_best_and_different() -> None:
    def batch(rows: list[list[int]], rewards: list[float]) -> Trajectory:
        actions = torch.tensor(rows).T
        shape = actions.shape
        return Trajectory(torch.zeros(*shape, 1, 1), torch.ones(*shape, 3, dtype=torch.bool), actions,
                          torch.tensor(rewards))  # fmt: skip

    elite = Elite(2)
    with pytest.raises(ValueError, match="no rollout"):
        elite.trajectory()
    elite.add(batch([[0, 0], [0, 1], [0, 0]], [0.5, 0.2, 0.9]))
    elite.add(batch([[1, 1], [2, 2]], [0.1, 0.7]))
    kept = elite.trajectory()
    assert dict(zip(map(tuple, kept.actions.T.tolist()), kept.rewards.tolist(), strict=True)) == pytest.approx(
        {(0, 0): 0.5, (2, 2): 0.7}
    )
    assert len(elite) == 2


def test_another_teacher_starts_with_the_weights_alone() -> None:
    agent = ppo(FEATURE_COUNT, 3, 5, seed=0, imitation_weight=0.3)
    agent.learn(rollout(open_env(4), agent).trajectory)
    assert len(agent._elite) == 4
    other = ppo(FEATURE_COUNT, 3, 40, seed=1)
    other.load(agent.state())
    other.reset(2)
    assert other.act(torch.rand(2, 90, FEATURE_COUNT), torch.ones(2, 3, dtype=torch.bool)).shape == (2,)
    agent.load(other.state())
    assert len(agent._elite) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"learning_rate": 0.0}, "learning_rate > 0"),
        ({"clip_range": 1.0}, "clip_range < 1"),
        ({"gae_decay": 1.5}, "gae_decay <= 1"),
        ({"epochs": 0}, "epochs >= 1"),
        ({"baseline": "mean"}, "baseline one of value, average, leave_one_out"),
        ({"scale": "log"}, "scale one of rank, standard"),
        ({"elite": 0}, "elite >= 1"),
        ({"encoder": "gnn"}, "choose one of decisions, layers, attention"),
        ({"hidden": 0}, "hidden >= 1"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ppo(FEATURE_COUNT, SPACE.num_actions, 5, seed=0, **options)
