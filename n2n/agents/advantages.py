"""The formulas of actor-critic learning, one function each. Rewards come once, for the finished student."""

from __future__ import annotations

import torch
from torch import Tensor


def generalised_advantages(values: Tensor, rewards: Tensor, decay: float) -> Tensor:
    """GAE (Schulman et al. 2016, arXiv 1506.02438), undiscounted, [T, B] of values [T, B] and rewards [B].

    `A_t = sum_{k >= t} decay^(k - t) delta_k` with `delta_k = V_{k+1} - V_k`, and `R - V_k` at the last decision. With
    decay 1 it is `R - V_t`.
    """
    following = torch.cat((values[1:], rewards.unsqueeze(0)))
    deltas = following - values
    gains = torch.empty_like(deltas)
    running = torch.zeros_like(rewards)
    for step in reversed(range(len(deltas))):
        running = deltas[step] + decay * running
        gains[step] = running
    return gains


def leave_one_out(rewards: Tensor) -> Tensor:
    """`R_b` minus the mean of the others (Kool et al. 2019; RLOO), [B]; 0 for one that is alone."""
    count = len(rewards)
    return rewards - (rewards.sum() - rewards) / (count - 1) if count > 1 else torch.zeros_like(rewards)


def clipped_surrogate(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """PPO's objective (Schulman et al. 2017, equation 7): `min(r A, clamp(r, 1 - clip, 1 + clip) A)`, elementwise."""
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def standardised(rewards: Tensor, history: Tensor) -> Tensor:
    """Rewards less the mean of `history`, over its standard deviation (plus 0.001)."""
    return (rewards - history.mean()) / (history.std(unbiased=False) + 1e-3)


def ranked(rewards: Tensor, history: Tensor) -> Tensor:
    """Twice the share of `history` that is below, ties counted half, less one: in [-1, 1].

    Nothing depends on the scale of the rewards, and one that is far below all others weighs no more than another low
    one (the rank-based shaping of evolution strategies: Wierstra et al. 2014; Salimans et al. 2017).
    """
    below = (history < rewards.unsqueeze(-1)).float().mean(-1)
    equal = (history == rewards.unsqueeze(-1)).float().mean(-1)
    return 2 * (below + equal / 2) - 1


SCALES = {"rank": ranked, "standard": standardised}
