"""Regularised ("ageing") evolution over action sequences: Real et al., AAAI 2019 (arXiv 1802.01548), algorithm 1.

A population of the latest students. Each child is the best of a random tournament with one decision redrawn; it joins
the population, and the oldest member dies, the best one too: whoever is to stay must be found again, which keeps lucky
judgements from breeding for ever. The best student of a run is in its store, whatever the population forgets.

Founders and redrawn decisions come from the uniform distribution, or from a learned policy that stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from n2n.agents.base import Stats, Trajectory, nearest_legal, no_state, reward_stats
from n2n.agents.masks import masked_log_probabilities
from n2n.agents.policies import Memory, Stepping
from n2n.agents.threads import one_thread
from n2n.reward import DEGENERATE

_FOUNDER = -1
"""The wish of a founder, which takes any legal action."""


class _Member(NamedTuple):
    actions: npt.NDArray[np.int64]  # [T]
    free: npt.NDArray[np.bool_]  # [T], where another action was legal
    reward: float


POPULATION, TOURNAMENT = 8, 3
"""Where nothing else is asked for."""
UNIFORM = 0.2
"""How often a decision is redrawn uniformly beside a policy's proposals: a sharp one would breed nothing new."""


def _reward(member: _Member) -> float:
    return member.reward


class EvolutionAgent:
    """Breeds action sequences under the masks of the space, so that every child keeps to what they say of its budget.

    The decision that is redrawn is one at which the parent had a choice, and its new action another legal one; behind
    it the nearest legal action to the parent's is taken and inherited. A child whose reward is that of a student which
    cannot be (-1: refused, failed, or over a budget that only measuring tells) dies at once.
    """

    def __init__(
        self,
        actions: int,
        decisions: int,
        *,
        seed: int,
        population: int,
        tournament: int,
        mutations: int,
        proposal: Stepping | None,
    ) -> None:
        if population < 2 or not 1 <= tournament <= population or not 1 <= mutations <= decisions:
            raise ValueError(
                f"expected population >= 2, tournament in 1..population and mutations in 1..{decisions} (decisions), "
                f"found population={population}, tournament={tournament}, mutations={mutations}"
            )
        self._actions, self._decisions = actions, decisions
        self._size, self._tournament, self._mutations = population, tournament, mutations
        self._proposal = proposal
        self._memory: Memory | None = None
        self._previous = torch.zeros(0, actions)
        self._rng = np.random.default_rng(seed)
        self._population: list[_Member] = []  # oldest first
        self._wishes = np.empty((0, 0), dtype=np.int64)  # [T, B]
        self._changed = np.empty((0, 0), dtype=np.bool_)  # [T, B]
        self._decision = 0

    def reset(self, batch_size: int) -> None:
        """Breeds the next children; founders as long as the population, with the children before, is not full."""
        founders = min(batch_size, max(0, self._size - len(self._population)))
        if not self._population:
            founders = batch_size
        self._wishes = np.full((self._decisions, batch_size), _FOUNDER, dtype=np.int64)
        self._changed = np.zeros((self._decisions, batch_size), dtype=np.bool_)
        for child in range(founders, batch_size):
            parent = self._parent()
            self._wishes[:, child] = parent.actions
            places = np.flatnonzero(parent.free)
            many = min(self._mutations, len(places))
            self._changed[self._rng.choice(places, size=many, replace=False), child] = True
        self._decision = 0
        self._memory, self._previous = None, torch.zeros(batch_size, self._actions)

    def act(self, observation: Tensor, legal: Tensor) -> Tensor:
        """The next action of each child, [B]."""
        wishes, changed = self._wishes[self._decision], self._changed[self._decision]
        nearest = nearest_legal(legal, torch.from_numpy(np.maximum(wishes, 0)).to(legal.device))
        masks, actions = legal.cpu().numpy(), nearest.cpu().numpy()
        odds = self._odds(observation, legal)  # [B, A]
        for child in np.flatnonzero(changed | (wishes == _FOUNDER)):
            open_to = np.flatnonzero(masks[child])
            others = open_to[open_to != wishes[child]]
            if len(others):  # else a mutation before this one has closed the way
                among = None if odds is None else odds[child, others] / odds[child, others].sum()
                actions[child] = self._rng.choice(others, p=among)
        self._decision += 1
        taken = torch.from_numpy(actions).to(legal.device)
        self._previous = torch.nn.functional.one_hot(taken, self._actions).float()
        return taken

    @torch.no_grad()
    @one_thread()
    def _odds(self, observation: Tensor, legal: Tensor) -> npt.NDArray[np.float64] | None:
        """What the next action of each child is drawn from, [B, A]; None for the uniform distribution."""
        if self._proposal is None:
            return None
        logits, self._memory = self._proposal.step(observation, self._previous, self._memory)
        proposed = masked_log_probabilities(logits, legal).exp().double()
        uniform = legal.double() / legal.sum(1, keepdim=True)
        odds: npt.NDArray[np.float64] = ((1 - UNIFORM) * proposed + UNIFORM * uniform).cpu().numpy()
        return odds

    def learn(self, trajectory: Trajectory) -> Stats:
        """The children join the population in their order, and the oldest leave it."""
        actions, free = trajectory.actions.cpu().numpy(), (trajectory.legal.sum(-1) > 1).cpu().numpy()  # [T, B]
        for child, reward in enumerate(trajectory.rewards.tolist()):
            if reward > DEGENERATE:
                self._population.append(_Member(actions[:, child].copy(), free[:, child].copy(), reward))
        del self._population[: max(0, len(self._population) - self._size)]
        return reward_stats(trajectory)

    def behaviour(self, trajectory: Trajectory) -> None:
        """Ageing evolution takes its members whenever they come."""

    def state(self) -> dict[str, Tensor]:
        """No weights."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Refuses weights."""
        no_state(state, "evolution")

    def _parent(self) -> _Member:
        """The best of a tournament, whose entrants are drawn with replacement as in the paper's algorithm 1."""
        entrants = self._rng.integers(len(self._population), size=self._tournament)
        return max([self._population[int(index)] for index in entrants], key=_reward)


def evolution(
    features: int,
    actions: int,
    decisions: int,
    *,
    seed: int,
    population: int = POPULATION,
    tournament: int = TOURNAMENT,
    mutations: int = 1,
    proposal: Stepping | None = None,
) -> EvolutionAgent:
    """Regularised evolution.

    The children of one batch have the same population to choose their parents from; rollouts of one student each are
    the algorithm as published.

    Args:
        features: not needed, evolution looks at nothing but for its proposals.
        actions: A.
        decisions: T.
        seed: of founders, tournaments and mutations.
        population: how many students are remembered; as many random ones are judged first. Small by default, because a
            search of a few dozen students would otherwise end before it breeds; searches by training-free scores have
            36 (with tournaments of 8) to 100 (of 25) and more.
        tournament: how many of them compete to be a parent.
        mutations: how many decisions of a child are redrawn; one in the paper.
        proposal: a policy that founders and redrawn decisions are drawn from, four times of five; it learns nothing.
            None draws them uniformly, as the paper does.

    Raises:
        ValueError: an argument is out of its range.
    """
    return EvolutionAgent(
        actions,
        decisions,
        seed=seed,
        population=population,
        tournament=tournament,
        mutations=mutations,
        proposal=proposal,
    )
