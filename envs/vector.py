"""Several drafts side by side, judged by one `evaluate` call."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.judge import Evaluate, Reward, judge, legal_action
from envs.spaces import LegalDiscrete, LegalMultiDiscrete
from search_spaces.base import Draft, Floats, Mask, SearchSpace

_Array = npt.NDArray[Any]
_METADATA: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.DISABLED}


class StudentVectorEnv(VectorEnv[Floats, _Array, _Array]):
    """`num_envs` times `StudentEnv`, in step: all drafts finish together, and one `evaluate` call judges them.

    Observations [B, N, F], actions [B], rewards [B]. `info["legal"]` is [B, A]; the last step adds the object arrays
    [B] `info["evaluation"]` and `info["architecture"]`. Nothing resets by itself: call `reset()` after the last step.

    Args:
        space: what is decided.
        evaluate: judges the B finished students in one call.
        reward: the reward of one evaluation.
        num_envs: B, at least 1.
    """

    metadata = _METADATA

    def __init__(self, space: SearchSpace, evaluate: Evaluate, reward: Reward, num_envs: int) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, found {num_envs}")
        self.space = space
        self.evaluate = evaluate
        self.reward = reward
        self.num_envs = num_envs
        self._drafts = [space.initial()] * num_envs
        self._started = False
        first = space.legal(space.initial())
        self.single_action_space = LegalDiscrete(first)
        self.legal_actions = LegalMultiDiscrete(first, num_envs)
        self.action_space = self.legal_actions
        self.single_observation_space = spaces.Box(0.0, 1.0, space.observe(space.initial()).shape, np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Floats, dict[str, Any]]:
        """All drafts back to the teacher.

        Raises:
            ValueError: `options["reset_mask"]` asks for some drafts only; they move in step.
        """
        if options is not None and not np.all(options.get("reset_mask", True)):
            raise ValueError("the drafts of a StudentVectorEnv move in step; reset all of them, without a reset_mask")
        if isinstance(seed, int):
            super().reset(seed=seed)
        self._drafts = [self.space.initial()] * self.num_envs
        self._started = True
        return self._observe(), self._info()

    def step(self, actions: npt.ArrayLike) -> tuple[Floats, _Array, _Array, _Array, dict[str, Any]]:
        """Takes one decision in every draft, actions [B].

        Raises:
            gymnasium.error.ResetNeeded: before the first reset, or after the last decision.
            IllegalAction: one of the actions is not legal; no draft has moved.
            ValueError: there are not B actions.
        """
        if not self._started or self._finished:
            raise gymnasium.error.ResetNeeded("there is no decision to take; call reset() first")
        chosen = np.asarray(actions)
        if chosen.shape != (self.num_envs,):
            raise ValueError(f"expected actions of shape ({self.num_envs},), found {chosen.shape}")
        decision = self._drafts[0].cursor
        checked = [
            legal_action(self.space, decision, mask, action)
            for mask, action in zip(self.legal_actions.legal, chosen, strict=True)
        ]
        self._drafts = [self.space.apply(draft, action) for draft, action in zip(self._drafts, checked, strict=True)]
        info = self._info()
        rewards = np.zeros(self.num_envs, dtype=np.float64)  # [B]
        if self._finished:
            students = [self.space.student(draft) for draft in self._drafts]
            evaluations, values = judge(students, self.evaluate, self.reward)
            rewards[:] = values
            info |= {"evaluation": _objects(evaluations), "_evaluation": np.ones(self.num_envs, dtype=np.bool_)}
            info |= {"architecture": _objects(students), "_architecture": np.ones(self.num_envs, dtype=np.bool_)}
        terminated = np.full(self.num_envs, self._finished)  # [B]
        return self._observe(), rewards, terminated, np.zeros(self.num_envs, dtype=np.bool_), info

    def action_masks(self) -> Mask:
        """Which actions [B, A] are legal now; all False once finished."""
        if self._finished:
            return np.zeros((self.num_envs, self.space.num_actions), dtype=np.bool_)
        masks = {draft: self.space.legal(draft) for draft in set(self._drafts)}
        return np.stack([masks[draft] for draft in self._drafts])  # [B, A]

    @property
    def _finished(self) -> bool:
        return self._drafts[0].cursor >= self.space.num_decisions

    def _observe(self) -> Floats:
        """The observations [B, N, F]; equal drafts, as after a reset, are read once."""
        rows: dict[Draft, Floats] = {draft: self.space.observe(draft) for draft in set(self._drafts)}
        return np.stack([rows[draft] for draft in self._drafts]).astype(np.float32, copy=False)

    def _info(self) -> dict[str, Any]:
        mask = self.action_masks()
        if not self._finished:
            self.legal_actions.legal = mask.copy()
        return {"legal": mask, "_legal": np.ones(self.num_envs, dtype=np.bool_)}


def _objects(values: list[Any]) -> _Array:
    """An object array [B]; numpy would unpack values that are sequences themselves."""
    array = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        array[index] = value
    return array
