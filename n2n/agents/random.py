"""Random search: every legal action is equally likely."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from n2n.agents.base import Stats, Trajectory, no_state, reward_stats


class RandomAgent:
    """Draws legal actions uniformly and learns nothing."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def reset(self, batch_size: int) -> None:
        """Nothing to prepare."""

    def act(self, observation: Tensor, legal: Tensor) -> Tensor:
        """Uniform over the legal actions, [B]."""
        return torch.multinomial(legal.float(), 1, generator=self._generator).squeeze(1)

    def learn(self, trajectory: Trajectory) -> Stats:
        """Reports the rewards."""
        return reward_stats(trajectory)

    def behaviour(self, trajectory: Trajectory) -> None:
        """Nothing is learned, so nothing is to be corrected."""

    def state(self) -> dict[str, Tensor]:
        """No weights."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Refuses weights."""
        no_state(state, "random")


def random(features: int, actions: int, decisions: int, *, seed: int) -> RandomAgent:
    """A random agent; `features`, `actions` and `decisions` are those of the space, and not needed."""
    return RandomAgent(seed)
