from __future__ import annotations

import pytest
import torch

from n2n.agents.advantages import clipped_surrogate, generalised_advantages, leave_one_out, ranked, standardised

VALUES = torch.tensor([[0.5, 0.0], [0.25, 0.0], [1.0, 0.0]])  # [T, B]
REWARDS = torch.tensor([2.0, -1.0])


def test_advantages_worked_by_hand() -> None:
    # deltas of the first rollout: 0.25 - 0.5, 1 - 0.25, 2 - 1
    half = generalised_advantages(VALUES, REWARDS, 0.5)
    assert half[:, 0].tolist() == pytest.approx([-0.25 + 0.5 * 0.75 + 0.25 * 1, 0.75 + 0.5 * 1, 1])
    assert half[:, 1].tolist() == pytest.approx([-0.25, -0.5, -1])


def test_the_ends_of_the_decay_are_monte_carlo_and_one_step() -> None:
    torch.testing.assert_close(generalised_advantages(VALUES, REWARDS, 1.0), REWARDS - VALUES)
    one_step = torch.cat((VALUES[1:], REWARDS[None])) - VALUES
    torch.testing.assert_close(generalised_advantages(VALUES, REWARDS, 0.0), one_step)


def test_leave_one_out_is_a_scaled_difference_from_the_mean() -> None:
    rewards = torch.tensor([1.0, 2.0, 6.0])
    assert leave_one_out(rewards).tolist() == pytest.approx([1 - 4, 2 - 3.5, 6 - 1.5])
    torch.testing.assert_close(leave_one_out(rewards), (rewards - rewards.mean()) * 3 / 2)
    assert leave_one_out(torch.tensor([3.0])).tolist() == [0]


def test_the_clipped_objective_is_pessimistic() -> None:
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1])
    gain = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])
    assert clipped_surrogate(ratio, gain, 0.2).tolist() == pytest.approx([1.2, -1.5, 0.5, -0.8, 1.1])


def test_ranks_count_ties_half_and_do_not_depend_on_the_scale() -> None:
    history = torch.tensor([1.0, 2.0, 2.0, 5.0])
    assert ranked(history, history).tolist() == pytest.approx([-0.75, 0.0, 0.0, 0.75])
    assert ranked(torch.tensor([9.0, 0.0]), history).tolist() == [1, -1]
    torch.testing.assert_close(ranked(history.exp(), history.exp()), ranked(history, history))


def test_standardised_rewards_have_mean_0_and_deviation_1() -> None:
    history = torch.tensor([1.0, 2.0, 2.0, 5.0])
    scaled = standardised(history, history)
    assert scaled.mean().item() == pytest.approx(0, abs=1e-6)
    assert scaled.std(unbiased=False).item() == pytest.approx(1, abs=1e-3)
    assert standardised(torch.ones(2), torch.ones(4)).tolist() == [0, 0]
