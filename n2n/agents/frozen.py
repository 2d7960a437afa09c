"""A learned policy that only acts."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from n2n.agents.base import Stats, Trajectory, no_state, reward_stats
from n2n.agents.draws import Draws
from n2n.agents.policies import Memory, Stepping
from n2n.agents.threads import one_thread


class FrozenAgent:
    """Plays what a policy finds likeliest first, then draws from it without replacement; it never learns."""

    def __init__(self, policy: Stepping, actions: int, decisions: int, *, seed: int) -> None:
        self._policy = policy
        self._draws = Draws(actions, decisions, repeats=False, generator=torch.Generator().manual_seed(seed))
        self._memory: Memory | None = None
        self._played = False

    def reset(self, batch_size: int) -> None:
        """Forgets the rollout before."""
        self._memory = None
        self._draws.reset(batch_size)

    @torch.no_grad()
    @one_thread()
    def act(self, observation: Tensor, legal: Tensor) -> Tensor:
        """A legal action for each draft, [B]; the likeliest ones in the first draft of the first batch."""
        logits, self._memory = self._policy.step(observation, self._draws.previous, self._memory)
        return self._draws.draw(observation, logits, legal, greedy=0 if self._played else 1)

    def learn(self, trajectory: Trajectory) -> Stats:
        """Nothing changes."""
        self._played = True
        return reward_stats(trajectory)

    def behaviour(self, trajectory: Trajectory) -> None:
        """What does not learn needs nothing."""

    def state(self) -> dict[str, Tensor]:
        """Nothing that was learned here."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Refuses weights: the policy is given when the agent is made."""
        no_state(state, "frozen")
