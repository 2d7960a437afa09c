from __future__ import annotations

import math

import pytest
import torch
from agent_contract import FEATURE_COUNT, SPACE, open_env
from torch import Tensor

from n2n.agents import Trajectory, rollout
from n2n.agents.policies import RemovalPolicy, ShrinkagePolicy, cursor_weight, one_hot_previous, under_cursor
from n2n.agents.reinforce import POLICIES, advantages, masked_log_probabilities, reinforce
from search_spaces.base import CURSOR


def policy_of(kind: str) -> RemovalPolicy | ShrinkagePolicy:
    return reinforce(FEATURE_COUNT, 3, 5, seed=0, policy=kind, hidden=6).policy


@pytest.mark.parametrize("kind", sorted(POLICIES))
def test_every_parameter_receives_a_gradient(kind: str) -> None:
    agent = reinforce(FEATURE_COUNT, 3, 5, seed=0, policy=kind)
    before = agent.state()
    agent.learn(rollout(open_env(4), agent).trajectory)
    after = agent.state()
    for name, parameter in agent.policy.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
        assert not torch.equal(before[name], after[name]), name


@pytest.mark.parametrize("kind", sorted(POLICIES))
@pytest.mark.parametrize("same_start", [True, False])
def test_step_by_step_and_all_at_once_agree(kind: str, same_start: bool) -> None:
    policy = policy_of(kind)
    generator = torch.Generator().manual_seed(0)
    observations = torch.rand(5, 2, 6, FEATURE_COUNT, generator=generator)  # [T, B, N, F]
    observations[..., CURSOR] = torch.eye(6)[:5].unsqueeze(1)
    observations[0] = observations[0, :1] if same_start else observations[0]
    actions = torch.randint(3, (5, 2), generator=generator)
    previous = one_hot_previous(actions, 3)
    memory, rows = None, []
    for step in range(5):
        logits, memory = policy.step(observations[step], previous[step], memory)
        rows.append(logits)
    torch.testing.assert_close(torch.stack(rows), policy.all_logits(observations, previous))


def test_previous_actions_are_shifted_by_one() -> None:
    previous = one_hot_previous(torch.tensor([[2, 0], [1, 1]]), 3)
    assert previous.tolist() == [[[0, 0, 0], [0, 0, 0]], [[0, 0, 1], [1, 0, 0]]]


def test_several_layers_under_the_cursor_are_averaged() -> None:
    observation = torch.zeros(1, 3, FEATURE_COUNT)
    observation[0, :, 0] = torch.tensor([1.0, 2.0, 6.0])
    observation[0, 1:, CURSOR] = 1
    assert under_cursor(observation, cursor_weight(observation))[0, 0] == 4


def test_the_removal_policy_looks_at_layers_on_both_sides() -> None:
    policy = policy_of("removal")
    assert isinstance(policy, RemovalPolicy)
    layers = torch.zeros(1, 5, FEATURE_COUNT)
    for changed in (0, 4):
        other = layers.clone()
        other[0, changed, 0] = 1
        assert not torch.equal(policy.encode(layers)[0, 2], policy.encode(other)[0, 2])


def test_illegal_actions_have_no_probability_and_no_gradient() -> None:
    logits = torch.tensor([[5.0, 1.0, 2.0]], requires_grad=True)
    legal = torch.tensor([[False, True, True]])
    log_probabilities = masked_log_probabilities(logits, legal)
    expected = 1 / (1 + math.e)
    assert log_probabilities.exp()[0].tolist() == pytest.approx([0, expected, 1 - expected])
    (log_probabilities.exp() * log_probabilities).sum().backward()
    assert logits.grad is not None
    assert logits.grad[0, 0] == 0
    assert torch.isfinite(logits.grad).all()


def test_each_rollout_has_its_own_advantage() -> None:
    rewards = torch.tensor([0.1, 0.5, 0.9])
    assert advantages(rewards, 0.4, normalise=False).tolist() == pytest.approx([-0.3, 0.1, 0.5])
    size = math.sqrt((0.09 + 0.01 + 0.25) / 3) + 0.01
    assert advantages(rewards, 0.4, normalise=True).tolist() == pytest.approx([-0.3 / size, 0.1 / size, 0.5 / size])
    assert advantages(torch.tensor([0.5, 0.5]), 0.5, normalise=True).tolist() == [0, 0]


def test_good_rollouts_become_likelier_and_bad_ones_less() -> None:
    agent = reinforce(FEATURE_COUNT, 3, 5, seed=0, policy="shrinkage", entropy_weight=0.0, learning_rate=1e-3)
    trajectory = rollout(open_env(2), agent).trajectory
    judged = Trajectory(trajectory.observations, trajectory.legal, trajectory.actions, torch.tensor([1.0, 0.0]))
    before = log_likelihood(agent.policy, judged)
    agent.learn(judged)
    change = log_likelihood(agent.policy, judged) - before
    assert change[0] > 0
    assert change[1] < 0


def log_likelihood(policy: RemovalPolicy | ShrinkagePolicy, trajectory: Trajectory) -> Tensor:
    logits = policy.all_logits(trajectory.observations, one_hot_previous(trajectory.actions, 3))
    taken = torch.distributions.Categorical(logits=logits.masked_fill(~trajectory.legal, -1e9))
    return taken.log_prob(trajectory.actions).sum(0).detach()


def test_the_baseline_is_a_moving_average() -> None:
    agent = reinforce(FEATURE_COUNT, 3, 5, seed=0, baseline_decay=0.75)
    trajectory = rollout(open_env(2), agent).trajectory
    baselines = []
    for rewards in ([0.2, 0.6], [0.8, 0.8], [0.0, 0.0]):
        judged = Trajectory(trajectory.observations, trajectory.legal, trajectory.actions, torch.tensor(rewards))
        baselines.append(agent.learn(judged)["baseline"])
    # Starts as the mean of the first batch; then 0.75 * 0.4 + 0.25 * 0.8.
    assert baselines == pytest.approx([0.4, 0.4, 0.5])


def test_entropy_of_an_untrained_choice_is_that_of_a_coin() -> None:
    agent = reinforce(FEATURE_COUNT, 2, 5, seed=0)
    with torch.no_grad():
        for parameter in agent.policy.parameters():
            parameter.zero_()
    observations = torch.zeros(3, 2, 4, FEATURE_COUNT)
    legal = torch.ones(3, 2, 2, dtype=torch.bool)
    stats = agent.learn(Trajectory(observations, legal, torch.zeros(3, 2, dtype=torch.int64), torch.ones(2)))
    assert stats["entropy"] == pytest.approx(math.log(2))


@pytest.mark.parametrize("kind", sorted(POLICIES))
def test_keep_bias_keeps(kind: str) -> None:
    def kept(bias: float) -> float:
        agent = reinforce(FEATURE_COUNT, 3, 5, seed=0, policy=kind, keep_bias=bias)
        return float((rollout(open_env(20), agent).trajectory.actions == 2).float().mean())

    assert kept(0.0) < 0.7
    assert kept(6.0) > 0.95


def test_weights_fit_a_teacher_of_another_depth() -> None:
    agent = reinforce(FEATURE_COUNT, 3, 5, seed=0)
    other = reinforce(FEATURE_COUNT, 3, 40, seed=1)
    other.load(agent.state())
    other.reset(2)
    assert other.act(torch.rand(2, 90, FEATURE_COUNT), torch.ones(2, 3, dtype=torch.bool)).shape == (2,)


def test_weights_of_another_size_are_refused() -> None:
    wide = reinforce(FEATURE_COUNT, 3, 5, seed=0, hidden=8).state()
    with pytest.raises(ValueError, match=r"head\.weight is \(3, 8\), not \(3, 6\)"):
        reinforce(FEATURE_COUNT, 3, 5, seed=0, hidden=6).load(wide)


def test_the_policy_follows_the_number_of_actions() -> None:
    assert isinstance(reinforce(FEATURE_COUNT, 2, 5, seed=0).policy, RemovalPolicy)
    assert isinstance(reinforce(FEATURE_COUNT, SPACE.num_actions, 5, seed=0).policy, ShrinkagePolicy)
    with pytest.raises(ValueError, match="choose one of removal, shrinkage"):
        reinforce(FEATURE_COUNT, 2, 5, seed=0, policy="transformer")


@pytest.mark.parametrize(
    ("option", "value"),
    [("learning_rate", 0.0), ("entropy_weight", -1.0), ("baseline_decay", 1.0), ("max_gradient_norm", 0.0)],
)
def test_options_out_of_range(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=option):
        reinforce(FEATURE_COUNT, 2, 5, seed=0, **{option: value})  # type: ignore[arg-type]
