"""Evolution over action sequences, after the ageing evolution of Real et al., AAAI 2019 (arXiv 1802.01548).

A population of the latest students; each child copies the best of a random tournament and redraws some of its
decisions. Age removes members, except that the best one found so far stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from n2n.agents.base import Stats, Trajectory, nearest_legal, no_state, reward_stats


class _Member(NamedTuple):
    actions: Tensor  # [T]
    reward: float


class EvolutionAgent:
    """Breeds action sequences; where a wished action is not legal, the nearest legal one is taken and inherited."""

    def __init__(
        self, actions: int, decisions: int, *, seed: int, population: int, tournament: int, mutations: float
    ) -> None:
        if population < 2 or not 1 <= tournament <= population or mutations <= 0:
            raise ValueError(
                f"expected population >= 2, tournament in 1..population and mutations > 0, "
                f"found population={population}, tournament={tournament}, mutations={mutations}"
            )
        self._actions, self._decisions = actions, decisions
        self._size, self._tournament = population, tournament
        self._rate = min(1.0, mutations / decisions)
        self._rng = np.random.default_rng(seed)
        self._population: list[_Member] = []  # oldest first
        self._wishes = torch.empty(0, 0, dtype=torch.int64)  # [T, B]
        self._decision = 0

    def reset(self, batch_size: int) -> None:
        """Breeds the next children."""
        bred = len(self._population) >= self._size
        children = [self._child() if bred else self._founder() for _ in range(batch_size)]
        self._wishes = torch.from_numpy(np.stack(children, axis=1))
        self._decision = 0

    def act(self, observation: Tensor, legal: Tensor) -> Tensor:
        """The next action of each child, [B]."""
        wished = self._wishes[self._decision].to(legal.device)
        self._decision += 1
        return nearest_legal(legal, wished)

    def learn(self, trajectory: Trajectory) -> Stats:
        """The children join the population, the oldest leave it."""
        for index, reward in enumerate(trajectory.rewards.tolist()):
            self._population.append(_Member(trajectory.actions[:, index].clone(), reward))
        while len(self._population) > self._size:
            best = max(range(len(self._population)), key=lambda index: self._population[index].reward)
            self._population.pop(1 if best == 0 else 0)
        return reward_stats(trajectory)

    def behaviour(self, trajectory: Trajectory) -> None:
        """Ageing evolution takes its members whenever they come."""

    def state(self) -> dict[str, Tensor]:
        """No weights."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Refuses weights."""
        no_state(state, "evolution")

    def _founder(self) -> npt.NDArray[np.int64]:
        return self._rng.integers(self._actions, size=self._decisions)  # [T]

    def _child(self) -> npt.NDArray[np.int64]:
        """The winner of a tournament with at least one decision changed, [T]."""
        entrants = self._rng.choice(len(self._population), size=self._tournament, replace=False)
        parent = max((self._population[index] for index in entrants), key=lambda member: member.reward)
        changed = self._rng.random(self._decisions) < self._rate
        changed[self._rng.integers(self._decisions)] = True
        # A shift by 1 to A - 1 around the circle never gives the action that was there.
        shift = self._rng.integers(1, self._actions, size=self._decisions)
        actions: npt.NDArray[np.int64] = parent.actions.numpy()
        return np.where(changed, (actions + shift) % self._actions, actions)


def evolution(
    features: int,
    actions: int,
    decisions: int,
    *,
    seed: int,
    population: int = 8,
    tournament: int = 3,
    mutations: float = 1.0,
) -> EvolutionAgent:
    """Ageing evolution.

    Args:
        features: not needed, evolution does not look.
        actions: A, at least 2.
        decisions: T.
        seed: of founders, tournaments and mutations.
        population: how many students are remembered; as many random ones are judged first. Small by default, because a
            search of a few dozen students would otherwise end before it breeds.
        tournament: how many of them compete to be a parent.
        mutations: how many decisions of a child are redrawn on average, besides the one that always is.

    Raises:
        ValueError: an argument is out of its range.
    """
    return EvolutionAgent(
        actions, decisions, seed=seed, population=population, tournament=tournament, mutations=mutations
    )
