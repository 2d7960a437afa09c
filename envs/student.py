"""The decision process over a space: one draft, one decision per step, one judged student per episode."""

from __future__ import annotations

from typing import Any, Literal, SupportsInt

import gymnasium
import numpy as np
from gymnasium import spaces

from envs.judge import Evaluate, Reward, judge, legal_action
from envs.spaces import LegalDiscrete
from search_spaces.base import Floats, Mask, SearchSpace, nearest_legal

_METADATA: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 4}


class StudentEnv(gymnasium.Env[Floats, np.int64]):
    """Edits the teacher decision by decision; the reward is 0 until the last decision, then that of the student.

    Observation: float32 [N, F] in [0, 1], see `search_spaces.base.FEATURES`. Action: an integer below A.
    `info["legal"]` [A] says which actions the next decision allows (all False once finished), `info["decision"]` which
    layer it speaks of; the last step adds `info["evaluation"]` and `info["architecture"]`.

    Every action that `action_space.sample()` draws can be played, see `envs.spaces.LegalDiscrete`. Any other illegal
    action raises `IllegalAction`; learners without masks put `NearestLegal` around the environment.

    Args:
        space: what is decided.
        evaluate: judges the finished student, in a batch of one.
        reward: the reward of its evaluation.
        render_mode: "ansi" makes `render()` return the draft layer by layer.
    """

    metadata = _METADATA

    def __init__(
        self, space: SearchSpace, evaluate: Evaluate, reward: Reward, render_mode: Literal["ansi"] | None = None
    ) -> None:
        if render_mode not in (None, "ansi"):
            raise ValueError(f"unknown render_mode {render_mode!r}; choose 'ansi' or None")
        self.space = space
        self.evaluate = evaluate
        self.reward = reward
        self.render_mode = render_mode
        self._draft = space.initial()
        self._started = False
        self.legal_actions = LegalDiscrete(space.legal(self._draft))
        self.action_space = self.legal_actions
        shape = space.observe(self._draft).shape  # [N, F]
        self.observation_space = spaces.Box(0.0, 1.0, shape, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]:
        """Back to the teacher; the process itself draws nothing, so every reset gives the same observation."""
        super().reset(seed=seed)
        self._draft = self.space.initial()
        self._started = True
        return self._observe(), self._info()

    def step(self, action: SupportsInt) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """Takes one decision.

        Raises:
            gymnasium.error.ResetNeeded: before the first reset, or after the last decision.
            IllegalAction: the action is not legal.
        """
        if not self._started or self._finished:
            raise gymnasium.error.ResetNeeded("there is no decision to take; call reset() first")
        mask = self.space.legal(self._draft)
        self._draft = self.space.apply(self._draft, legal_action(self.space, self._draft.cursor, mask, action))
        if not self._finished:
            return self._observe(), 0.0, False, False, self._info()
        student = self.space.student(self._draft)
        evaluations, rewards = judge([student], self.evaluate, self.reward)
        info = {**self._info(), "evaluation": evaluations[0], "architecture": student}
        return self._observe(), rewards[0], True, False, info

    def action_masks(self) -> Mask:
        """Which actions [A] are legal now, under the name that sb3-contrib's MaskablePPO asks for."""
        if self._finished:
            return np.zeros(self.space.num_actions, dtype=np.bool_)
        return self.space.legal(self._draft).copy()

    def render(self) -> str | None:
        """The draft, one line per decision: `>` marks the next one. None without a render mode."""
        if self.render_mode is None:
            return None
        lines = []
        for decision in range(self.space.num_decisions):
            taken = decision < self._draft.cursor
            mark = ">" if decision == self._draft.cursor else " "
            action = f"{self._draft.actions[decision]} of 0..{self.space.num_actions - 1}" if taken else "-"
            lines.append(f"{mark} {decision:3d}  {self.space.decision_name(decision)}: {action}")
        return "\n".join(lines)

    @property
    def _finished(self) -> bool:
        return self._draft.cursor >= self.space.num_decisions

    def _observe(self) -> Floats:
        """The observation [N, F], a copy that the caller may keep."""
        return np.array(self.space.observe(self._draft), dtype=np.float32)

    def _info(self) -> dict[str, Any]:
        mask = self.action_masks()
        # After the last decision the next action to be played is the first of another episode.
        self.legal_actions.legal = self.legal_actions.first if self._finished else mask.copy()
        return {"legal": mask, "decision": "" if self._finished else self.space.decision_name(self._draft.cursor)}


class NearestLegal(gymnasium.ActionWrapper[Floats, np.int64, np.int64]):
    """Plays the legal action nearest to the given one, of two equally near the larger; for learners without masks."""

    def __init__(self, env: gymnasium.Env[Floats, np.int64]) -> None:
        super().__init__(env)
        actions = env.action_space
        if not isinstance(actions, spaces.Discrete):
            raise TypeError(f"NearestLegal wraps a StudentEnv, whose actions are Discrete; found {actions}")
        self.action_space = spaces.Discrete(int(actions.n))

    def action(self, action: np.int64) -> np.int64:
        """The action that is played."""
        base = self.env.unwrapped
        if not isinstance(base, StudentEnv):
            raise TypeError(f"NearestLegal wraps a StudentEnv, found {type(base).__name__}")
        mask = base.action_masks()
        return np.int64(nearest_legal(mask, int(action)) if mask.any() else action)
