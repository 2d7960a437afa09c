"""What the options of objectives must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from n2n.distill.objectives.correlation import KERNELS


@dataclass(frozen=True)
class Range:
    """Whether a value `holds`, and what was `expected`, in words."""

    holds: Callable[[Any], bool]
    expected: str


_POSITIVE = Range(lambda value: value > 0, "above 0")
_NOT_NEGATIVE = Range(lambda value: value >= 0, "0 or more")
_COUNT = Range(lambda value: value >= 1, "1 or more")
_SHARE = Range(lambda value: 0 <= value <= 1, "a share in [0, 1]")
_PROPER = Range(lambda value: 0 <= value < 1, "a share in [0, 1)")

_OF_ONE: Mapping[str, Range] = {
    "kd.alpha": _SHARE,
    "wttm.gamma": _POSITIVE,
    "ofa.gamma": _COUNT,  # below 1 the label's class can weigh less than nothing
    "correlation.gamma": _POSITIVE,
}
_OF_ALL: Mapping[str, Range] = {
    "temperature": _POSITIVE,
    "margin": _POSITIVE,
    "rate": _POSITIVE,
    "alpha": _NOT_NEGATIVE,
    "beta": _NOT_NEGATIVE,
    "gamma": _NOT_NEGATIVE,
    "sigma": _NOT_NEGATIVE,
    "warmup_epochs": _NOT_NEGATIVE,
    "ce_weight": _NOT_NEGATIVE,
    "kd_weight": _NOT_NEGATIVE,
    "head_weight": _NOT_NEGATIVE,
    "exit_weight": _NOT_NEGATIVE,
    "distance_weight": _NOT_NEGATIVE,
    "angle_weight": _NOT_NEGATIVE,
    "order": _COUNT,
    "negatives": _COUNT,
    "dim": _COUNT,
    "share": _SHARE,
    "momentum": _SHARE,
    "label_smoothing": _PROPER,
    "kernel": Range(lambda value: value in KERNELS, f"one of {', '.join(KERNELS)}"),
}


def range_of(objective: str, option: str) -> Range | None:
    """What an option must be: as it is said of this objective's, else of every option with that name."""
    return _OF_ONE.get(f"{objective}.{option}", _OF_ALL.get(option))
