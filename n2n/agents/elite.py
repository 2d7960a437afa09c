"""The best rollouts so far, kept to be learned from again."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from n2n.agents.base import Trajectory


class _Kept(NamedTuple):
    reward: float
    observations: Tensor  # [T, N, F]
    legal: Tensor  # [T, A]
    actions: Tensor  # [T]


class Elite:
    """At most `size` rollouts with different actions, those of the highest rewards; of equal ones the earlier."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: dict[tuple[int, ...], _Kept] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, trajectory: Trajectory) -> None:
        """Takes the rollouts that are good enough; one that is known keeps its first reward."""
        for index, reward in enumerate(trajectory.rewards.tolist()):
            actions = trajectory.actions[:, index]
            key = tuple(actions.tolist())
            if key in self._kept:
                continue
            if len(self._kept) == self._size:
                worst = min(reversed(self._kept), key=lambda one: self._kept[one].reward)
                if self._kept[worst].reward >= reward:
                    continue
                del self._kept[worst]
            seen, legal = trajectory.observations[:, index].clone(), trajectory.legal[:, index].clone()
            self._kept[key] = _Kept(reward, seen, legal, actions.clone())

    def trajectory(self) -> Trajectory:
        """The rollouts as one batch of B <= size.

        Raises:
            ValueError: there is none yet.
        """
        if not self._kept:
            raise ValueError("there is no rollout to learn from again yet; add() one first")
        kept = list(self._kept.values())
        return Trajectory(
            observations=torch.stack([one.observations for one in kept], dim=1),
            legal=torch.stack([one.legal for one in kept], dim=1),
            actions=torch.stack([one.actions for one in kept], dim=1),
            rewards=torch.tensor([one.reward for one in kept]),
        )
