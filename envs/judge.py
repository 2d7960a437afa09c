"""The seam between finished students and their rewards: one `evaluate` call, then one reward each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from search_spaces.base import Architecture, SearchSpace, SpaceError

Evaluate: TypeAlias = Callable[[Sequence[Architecture]], Sequence[Any]]
"""Judges a batch of students: one evaluation each, same order. What an evaluation is, is the caller's business."""

Reward: TypeAlias = Callable[[Any], float]
"""The finite reward of one evaluation."""


class IllegalAction(SpaceError):  # noqa: N818 - the name says what happened, as gymnasium's own errors do
    """An action that the current decision does not allow; the message names the layer and the legal actions."""


def judge(students: Sequence[Architecture], evaluate: Evaluate, reward: Reward) -> tuple[list[Any], list[float]]:
    """Evaluations and rewards [B] of a batch of students, from exactly one `evaluate` call.

    Raises:
        ValueError: `evaluate` gave another number of evaluations than students, or a reward is not a finite number.
    """
    evaluations = list(evaluate(students))
    if len(evaluations) != len(students):
        raise ValueError(
            f"evaluate was given {len(students)} students and returned {len(evaluations)} evaluations; "
            "return one per student, in the same order, failures included"
        )
    rewards = [float(reward(evaluation)) for evaluation in evaluations]
    for student, value in zip(students, rewards, strict=True):
        if not math.isfinite(value):
            raise ValueError(
                f"the reward of student {student.fingerprint} is {value}; a reward is finite, "
                "give students that could not be judged a fixed low one"
            )
    return evaluations, rewards


def legal_action(space: SearchSpace, decision: int, mask: np.ndarray[Any, np.dtype[np.bool_]], action: object) -> int:
    """`action` as an int, where it is one that `mask` [A] allows.

    Raises:
        IllegalAction: it is not an integer, out of range, or not legal.
    """
    value = np.asarray(action)
    whole = value.size == 1 and np.issubdtype(value.dtype, np.integer)
    if not whole or not 0 <= value.item() < len(mask) or not mask[value.item()]:
        raise IllegalAction(
            f"action {action!r} is not legal for decision {decision} ({space.decision_name(decision)}); "
            f"legal actions: {np.flatnonzero(mask).tolist()}"
        )
    return int(value.item())
