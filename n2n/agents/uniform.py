"""Uniform scaling, the baseline that learns nothing: every decision at the same level, one level per student.

Levels are real numbers from 0 to A - 1. First the whole ones are tried from A - 2 down to 0, then the halves between
them, then the quarters, and so on. A level between two actions alternates between both as evenly as it can: action
`floor((t + 1) x) - floor(t x)` at decision t has the mean x. With two actions, level 1/2 removes every other layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction

import torch
from torch import Tensor

from n2n.agents.base import Stats, Trajectory, nearest_legal, no_state, reward_stats


def levels(actions: int) -> Iterator[Fraction]:
    """The levels in the order in which they are tried: endless, no repeats, and without A - 1, the teacher."""
    for level in range(actions - 2, -1, -1):
        yield Fraction(level)
    denominator = 2
    while True:
        for numerator in range((actions - 1) * denominator - 1, 0, -2):
            yield Fraction(numerator, denominator)
        denominator *= 2


def spread(level: Fraction, decision: int) -> int:
    """The action of one decision at a level, see the module."""
    return math.floor((decision + 1) * level) - math.floor(decision * level)


class UniformAgent:
    """Plays one level per student; where its action is not legal, the nearest legal one."""

    def __init__(self, actions: int) -> None:
        self._levels = levels(actions)
        self._batch: list[Fraction] = []
        self._decision = 0

    def reset(self, batch_size: int) -> None:
        """Takes the next levels."""
        self._batch = [next(self._levels) for _ in range(batch_size)]
        self._decision = 0

    def act(self, observation: Tensor, legal: Tensor) -> Tensor:
        """The action of each draft's level, [B]."""
        wished = torch.tensor([spread(level, self._decision) for level in self._batch], device=legal.device)
        self._decision += 1
        return nearest_legal(legal, wished)

    def learn(self, trajectory: Trajectory) -> Stats:
        """Reports the rewards."""
        return reward_stats(trajectory)

    def state(self) -> dict[str, Tensor]:
        """No weights."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Refuses weights."""
        no_state(state, "uniform")


def uniform(features: int, actions: int, decisions: int, *, seed: int) -> UniformAgent:
    """Uniform scaling over `actions` levels; nothing is random, so `seed` changes nothing."""
    return UniformAgent(actions)
