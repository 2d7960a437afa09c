"""A hard budget on what is known of a student without training it."""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces.base import Cost

RESERVE = 2 / 3
"""The share of a budget that decisions plan to use up, so that those to come can still take more than the least."""


@dataclass(frozen=True)
class CostLimits:
    """The most that a student may cost; None leaves that cost free."""

    parameters: float | None = None
    macs: float | None = None
    bytes: float | None = None

    def allow(self, cost: Cost) -> bool:
        """Whether a cost keeps to all of them."""
        return all(limit is None or value <= limit for _, limit, value in self._pairs(cost))

    def scaled(self, share: float) -> CostLimits:
        """The same limits times `share`."""
        parts = (self.parameters, self.macs, self.bytes)
        return CostLimits(*(None if limit is None else limit * share for limit in parts))

    def too_tight(self, least: Cost, teacher: Cost) -> str:
        """What to say where even the smallest student costs more: what was asked, and what can be had."""
        asked = " and ".join(f"{int(limit):,} {name}" for name, limit, _ in self._pairs(least) if limit is not None)
        return (
            f"no student has at most {asked}; the smallest has {least.parameters:,} parameters, {least.macs:,} MACs "
            f"and {least.bytes:,} bytes, the teacher {teacher.parameters:,}, {teacher.macs:,} and {teacher.bytes:,}"
        )

    def _pairs(self, cost: Cost) -> tuple[tuple[str, float | None, int], ...]:
        return (
            ("parameters", self.parameters, cost.parameters),
            ("MACs", self.macs, cost.macs),
            ("bytes", self.bytes, cost.bytes),
        )


NO_LIMITS = CostLimits()
