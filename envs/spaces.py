"""Action spaces whose samples can be played: discrete actions that know which of them are legal now."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from search_spaces.base import Mask


class LegalDiscrete(spaces.Discrete[np.int64]):
    """`Discrete(A)` that draws legal actions only.

    Membership is that of `Discrete(A)`; only `sample()` without arguments looks at the mask, which the environment
    renews at every decision. The first sample after `seed()` is drawn from the actions that are legal both now and
    at the first decision, because who seeds a space may sample before resetting (Gymnasium's `check_env` does).
    """

    def __init__(self, first: Mask) -> None:
        super().__init__(len(first))
        self.first = first.copy()  # [A], legal at the first decision
        self.legal = first.copy()  # [A], legal now
        self._just_seeded = True

    def seed(self, seed: int | None = None) -> int:
        """Seeds the draws."""
        self._just_seeded = True
        return super().seed(seed)

    def sample(self, mask: Any = None, probability: Any = None) -> np.int64:
        """A legal action; with `mask` or `probability` as `Discrete.sample`."""
        if mask is None and probability is None:
            mask = (self.legal & self.first if self._just_seeded else self.legal).astype(np.int8)
            self._just_seeded = False
        return super().sample(mask=mask, probability=probability)


class LegalMultiDiscrete(spaces.MultiDiscrete):
    """`MultiDiscrete([A] * B)` that draws legal actions only: B environments side by side."""

    def __init__(self, first: Mask, num_envs: int) -> None:
        super().__init__(np.full(num_envs, len(first), dtype=np.int64))
        self.legal = np.tile(first, (num_envs, 1))  # [B, A], legal now

    def sample(self, mask: Any = None, probability: Any = None) -> Any:
        """Legal actions [B]; with `mask` or `probability` as `MultiDiscrete.sample`."""
        if mask is None and probability is None:
            mask = tuple(row.astype(np.int8) for row in self.legal)
        return super().sample(mask=mask, probability=probability)
