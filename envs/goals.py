"""Drafts that are asked for a size: the goal is part of what the agent sees, so that one policy serves many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from envs.judge import Evaluate
from envs.vector import StudentVectorEnv
from search_spaces.base import GOALS, Floats, SearchSpace


@dataclass(frozen=True)
class Goal:
    """What a student should cost at most, as shares of the teacher in (0, 1]; 0 asks for nothing."""

    parameters: float = 0.0
    macs: float = 0.0

    def __post_init__(self) -> None:
        for name in ("parameters", "macs"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise ValueError(f"Goal: {name} must be a share of the teacher from 0 (none) to 1, found {share!r}")


NO_GOAL = Goal()
"""Nothing is asked for."""
GoalReward: TypeAlias = Callable[[Any, Goal], float]
"""The finite reward of an evaluation, where this was asked."""
Goals: TypeAlias = Callable[[int], Sequence[Goal]]
"""So many goals, one for each draft of the next batch."""


class GoalVectorEnv:
    """A `StudentVectorEnv` whose drafts have a goal each, drawn at `reset` and written into every observation.

    `info["goal"]` is the tuple of the B goals. The hard budgets of a space are something else: they forbid actions.

    Args:
        space: what is decided.
        evaluate: judges the B finished students in one call.
        reward: the reward of one evaluation under its goal.
        num_envs: B, at least 1.
        goals: gives B goals at each reset; see `drawn_goals`.
    """

    def __init__(self, space: SearchSpace, evaluate: Evaluate, reward: GoalReward, num_envs: int, goals: Goals) -> None:
        self.space = space
        self.num_envs = num_envs
        self.goals: tuple[Goal, ...] = ()
        self._draw = goals
        self._reward = reward
        self._env = StudentVectorEnv(space, evaluate, self._next_reward, num_envs)
        self._rewarded = 0

    def reset(self) -> tuple[Floats, dict[str, Any]]:
        """All drafts back to the teacher, with new goals.

        Raises:
            ValueError: `goals` gave another number than there are drafts.
        """
        self.goals = tuple(self._draw(self.num_envs))
        if len(self.goals) != self.num_envs:
            raise ValueError(f"goals({self.num_envs}) gave {len(self.goals)} goals; give one for each draft")
        self._rewarded = 0
        seen, info = self._env.reset()
        return self._shown(seen), {**info, "goal": self.goals}

    def step(self, actions: npt.ArrayLike) -> tuple[Floats, Any, Any, Any, dict[str, Any]]:
        """One decision in every draft; see `StudentVectorEnv.step`, whose errors it raises."""
        seen, rewards, terminated, truncated, info = self._env.step(actions)
        return self._shown(seen), rewards, terminated, truncated, {**info, "goal": self.goals}

    def _next_reward(self, evaluation: Any) -> float:
        """The reward of the next draft: they are asked for in the order of the batch, once each."""
        goal = self.goals[self._rewarded]
        self._rewarded += 1
        return self._reward(evaluation, goal)

    def _shown(self, seen: Floats) -> Floats:
        """The observations [B, N, F] with the goals in their columns."""
        shares = np.array([(goal.parameters, goal.macs) for goal in self.goals], dtype=np.float32)  # [B, 2]
        shown = seen.copy()
        shown[:, :, list(GOALS)] = shares[:, None, :]
        return shown


def always(goal: Goal) -> Goals:
    """The same goal for every draft."""
    return lambda count: [goal] * count


def drawn_goals(
    rng: np.random.Generator, *, least: float = 0.05, most: float = 0.6, macs: float = 0.5, free: float = 0.0
) -> Goals:
    """Goals for training: shares drawn log-uniformly, so that each halving of the size is asked for as often.

    Args:
        rng: of the draws.
        least, most: the smallest and the largest share.
        macs: the probability that the share is one of the MACs; otherwise it is one of the parameters.
        free: the probability that nothing is asked for.

    Raises:
        ValueError: shares out of order or range, or a probability out of [0, 1].
    """
    if not 0 < least <= most <= 1 or not 0 <= macs <= 1 or not 0 <= free <= 1:
        raise ValueError(
            f"expected 0 < least <= most <= 1 and probabilities macs and free; found least={least}, most={most}, "
            f"macs={macs}, free={free}"
        )

    def one() -> Goal:
        if rng.random() < free:
            return NO_GOAL
        share = min(max(float(np.exp(rng.uniform(np.log(least), np.log(most)))), least), most)
        return Goal(macs=share) if rng.random() < macs else Goal(parameters=share)

    return lambda count: [one() for _ in range(count)]
