"""What every agent is, and one rollout of it. Agents see observations, masks and rewards, and nothing of networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from envs.goals import GoalVectorEnv
from envs.vector import StudentVectorEnv
from n2n.agents.policies import Stepping
from search_spaces.base import nearest_legal as one_nearest


@dataclass(frozen=True)
class Trajectory:
    """B rollouts of T decisions each.

    Attributes:
        observations: float32 [T, B, N, F], what was seen before each decision.
        legal: bool [T, B, A].
        actions: int64 [T, B].
        rewards: float32 [B], that of the finished student; the decisions before it earn nothing.
        behaviour: float32 [T, B], the log-probabilities of the actions when they were taken, where the agent may have
            learned since; None where it has not.
    """

    observations: Tensor
    legal: Tensor
    actions: Tensor
    rewards: Tensor
    behaviour: Tensor | None = None


@dataclass(frozen=True)
class Stats(Mapping[str, float]):
    """What one call of `learn` says about itself; as a mapping it holds the numbers that the agent has.

    Attributes:
        mean_reward: mean over the rollouts of the batch.
        best_reward: largest of the batch.
        loss: what was minimised, lower is better; its scale is the agent's own.
        entropy: mean over the decisions, in nats; ln A for an agent that knows nothing, 0 for one that is certain.
        baseline: the reward that was expected before the batch.
        gradient_norm: Euclidean norm before clipping.
    """

    mean_reward: float
    best_reward: float
    loss: float | None = None
    entropy: float | None = None
    baseline: float | None = None
    gradient_norm: float | None = None

    def _known(self) -> dict[str, float]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: float(value) for name, value in values.items() if value is not None}

    def __getitem__(self, name: str) -> float:
        return self._known()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known())

    def __len__(self) -> int:
        return len(self._known())


@runtime_checkable
class Agent(Protocol):
    """Takes decisions for B drafts side by side, and learns from what became of them."""

    def reset(self, batch_size: int) -> None:
        """A new rollout of `batch_size` drafts begins; `act` is called T times now."""
        ...

    def act(self, observation: Tensor, legal: Tensor) -> Tensor:
        """Legal actions int64 [B] for observations float32 [B, N, F] and masks bool [B, A]."""
        ...

    def learn(self, trajectory: Trajectory) -> Stats:
        """Updates the agent from the rollouts it has just made."""
        ...

    def state(self) -> dict[str, Tensor]:
        """The learned weights by name, detached copies on the CPU; empty for agents that have none."""
        ...

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes weights over that `state` gave.

        Raises:
            ValueError: names or shapes are not those of this agent.
        """
        ...


@runtime_checkable
class Patient(Protocol):
    """An agent that may learn from rollouts which it made before its last updates."""

    def behaviour(self, trajectory: Trajectory) -> Tensor | None:
        """What to note of a rollout when it is made, see `Trajectory.behaviour`; None where the agent needs nothing."""
        ...


@runtime_checkable
class Learned(Protocol):
    """An agent whose policy others can act with (`n2n.agents.frozen`, the proposals of evolution)."""

    @property
    def acting(self) -> Stepping:
        """The policy as it is now, not a copy."""
        ...


class Rollout(NamedTuple):
    """A trajectory and the evaluations [B] of its students, in the order of the batch."""

    trajectory: Trajectory
    evaluations: list[Any]


def rollout(env: StudentVectorEnv | GoalVectorEnv, agent: Agent) -> Rollout:
    """Lets the agent finish one batch of students; `env.evaluate` is called once, at the end."""
    decisions, batch = env.space.num_decisions, env.num_envs
    seen, info = env.reset()
    agent.reset(batch)
    observations = torch.empty(decisions, *seen.shape)  # [T, B, N, F]
    legal = torch.empty(decisions, *info["legal"].shape, dtype=torch.bool)  # [T, B, A]
    actions = torch.empty(decisions, batch, dtype=torch.int64)  # [T, B]
    rewards = torch.zeros(batch)  # [B]
    for step in range(decisions):
        observations[step] = torch.from_numpy(seen)
        legal[step] = torch.from_numpy(info["legal"])
        actions[step] = agent.act(observations[step], legal[step])
        seen, reward, _, _, info = env.step(actions[step].numpy())
        rewards += torch.from_numpy(reward).float()
    return Rollout(Trajectory(observations, legal, actions, rewards), list(info["evaluation"]))


def reward_stats(trajectory: Trajectory) -> Stats:
    """The statistics of an agent that has nothing more to say than its rewards."""
    return Stats(trajectory.rewards.mean().item(), trajectory.rewards.max().item())


def nearest_legal(legal: Tensor, wished: Tensor) -> Tensor:
    """The legal action nearest to each wish, of two equally near ones the larger: [B] for masks [B, A], wishes [B]."""
    chosen = [one_nearest(mask.cpu().numpy(), int(wish)) for mask, wish in zip(legal, wished, strict=True)]
    return torch.tensor(chosen, device=legal.device)


def fitting(policy: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Refuses weights that are not those of `policy`.

    Raises:
        ValueError: names or shapes differ; says which.
    """
    own = {name: tuple(value.shape) for name, value in policy.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in state.items()}
    reasons = [
        *(f"{name} is unknown" for name in sorted(given.keys() - own.keys())),
        *(f"{name} is missing" for name in sorted(own.keys() - given.keys())),
        *(
            f"{name} is {given[name]}, not {own[name]}"
            for name in sorted(own)
            if given.get(name, own[name]) != own[name]
        ),
    ]
    if reasons:
        more = f" and {len(reasons) - 4} more" if len(reasons) > 4 else ""
        raise ValueError(
            f"the weights are not those of this {type(policy).__name__}: {'; '.join(reasons[:4])}{more}; take a policy "
            "of the same kind, number of actions, sizes and feature version"
        )


def no_state(state: Mapping[str, Tensor], agent: str) -> None:
    """Refuses weights for an agent that has none.

    Raises:
        ValueError: `state` is not empty.
    """
    if state:
        raise ValueError(f"the agent {agent!r} has no weights, and was given {', '.join(sorted(state))}")
