"""What every judge that builds a student's network does alike: whom it refuses, and how a failure becomes a record."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from n2n.evaluate.base import Evaluation, Status, evaluation_seed, not_ok
from search_spaces.base import Architecture, Cost, SearchSpace, SpaceError

Refuse = Callable[[Cost], str]
"""Why a student of that cost is not worth judging; "" where it is."""
Attempt = Callable[[Architecture, Cost, int], Evaluation]
"""Builds and judges a student of that cost by that seed of its own; the seconds are left to `judge`."""


def judge(
    student: Architecture,
    attempt: Attempt,
    *,
    space: SearchSpace,
    seed: int,
    fidelity: str,
    teacher_parameters: int | None,
    refuse: Refuse | None = None,
    fails_by: tuple[type[Exception], ...] = (),
) -> Evaluation:
    """The evaluation of one student, with its wall time: that of `attempt`, or the record of why there is none.

    Args:
        student: of `space`.
        attempt: what judges it.
        space: knows the student's cost.
        seed: of the run; the student's own derives from it.
        fidelity: for the record of a student that is not OK.
        teacher_parameters: a student that has as many or more is INVALID; None where there is no teacher.
        refuse: a reason of the caller's, which makes a student INVALID, too.
        fails_by: errors of `attempt` whose messages say all; they make a student FAILED, as do one that does not run
            (a RuntimeError or ValueError of torch's) and one that runs out of memory.

    Raises:
        SpaceError: the student is of another space; that is the caller's mistake and no property of the student.
        NotImplementedError, RecursionError: and all others that only a bug gives.
    """
    start = time.monotonic()
    own = evaluation_seed(seed, student.fingerprint)
    cost = space.cost(student)
    status, reason = Status.INVALID, _refusal(cost, teacher_parameters, refuse)
    if not reason:
        status = Status.FAILED
        try:
            return replace(attempt(student, cost, own), seconds=time.monotonic() - start)
        except (torch.OutOfMemoryError, MemoryError) as error:
            reason = f"out of memory: {error}"
        except fails_by as error:
            reason = str(error)
        except (SpaceError, NotImplementedError, RecursionError):
            raise
        except (RuntimeError, ValueError) as error:
            reason = f"does not run: {type(error).__name__}: {error}"
    return not_ok(status, reason, student, cost, seconds=time.monotonic() - start, seed=own, fidelity=fidelity)


def _refusal(cost: Cost, teacher_parameters: int | None, refuse: Refuse | None) -> str:
    if teacher_parameters is not None and cost.parameters >= teacher_parameters:
        return f"not smaller than the teacher: {cost.parameters:,} of {teacher_parameters:,} parameters"
    return refuse(cost) if refuse is not None else ""


def digest(values: Tensor | None) -> str:
    """A hash of a tensor's values; "" for none."""
    return "" if values is None else hashlib.sha256(values.cpu().contiguous().numpy().tobytes()).hexdigest()
