"""What is asked of a student's costs, held against what can be had and what was found."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from n2n.distill.teacher import Teacher
from n2n.networks import Timings, size_mb
from n2n.networks.units import significant
from n2n.reward import Budget, parse_budget
from n2n.search.errors import SearchError
from n2n.search.options import BUDGETS, SearchOptions
from n2n.search.spaces import Reach

TEACHER = "teacher"
"""What the teacher is known by among latencies."""
FAR_BELOW = 0.5
"""A student that uses less than this share of every budget leaves accuracy behind, and is noted."""


@dataclass(frozen=True)
class Bounded:
    """A quantity that a budget bounds: the option that says so, its field in `Budget`, its name among figures."""

    option: str
    limit: str
    figure: str
    unit: str
    text: Callable[[float], str]

    def words(self, value: float) -> str:
        """A value with its unit."""
        return f"{self.text(value)} {self.unit}"


BOUNDED = (
    Bounded("max_params", "max_parameters", "parameters", "parameters", "{:,.0f}".format),
    Bounded("max_macs", "max_macs", "macs", "MACs", "{:,.0f}".format),
    Bounded("max_size_mb", "max_size_mb", "size_mb", "MB", "{:.6g}".format),
    Bounded("max_latency_ms", "max_latency_ms", "latency_ms", "ms", significant),
)
ROUNDING = 1 - 1e-9
"""A share of 100% may come out this much smaller than the whole."""
Costs = Mapping[str, float]
"""What a network costs, by the names in `Figures`; a latency is there only where it is bounded."""


def budget_of(options: SearchOptions, teacher: Teacher, timings: Timings) -> Budget:
    """The budgets as numbers; the teacher is timed where a share of its latency is asked for.

    Raises:
        SearchError: one that cannot be read, or is not above 0.
    """
    share_of_latency = isinstance(options.max_latency_ms, str) and options.max_latency_ms.strip().endswith("%")
    whole: dict[str, float] = {"parameters": teacher.parameters, "macs": teacher.macs}
    whole["size_mb"] = size_mb(teacher.network)
    whole["latency_ms"] = timings.of(TEACHER, teacher.network).median_ms if share_of_latency else math.inf
    limits: dict[str, float | None] = {}
    for one in BOUNDED:
        counts = one.figure in ("parameters", "macs")
        try:
            limits[one.limit] = parse_budget(getattr(options, one.option), whole[one.figure], counts=counts)
        except ValueError as error:
            raise SearchError(f"{one.option}: {error}") from error
    return Budget(**limits)


def teacher_costs(teacher: Teacher, budget: Budget, timings: Timings) -> Costs:
    """The most that a student is allowed to cost at all; the teacher is timed where latency is bounded."""
    costs = {"parameters": teacher.parameters, "macs": teacher.macs, "size_mb": size_mb(teacher.network)}
    if budget.max_latency_ms is not None:
        costs["latency_ms"] = timings.of(TEACHER, teacher.network).median_ms
    return costs


def least_costs(within: Reach, students: Sequence[nn.Module], budget: Budget, timings: Timings) -> Costs:
    """The least that the stages reach; `students` are those of `within`, built, timed where latency is bounded."""
    least = within.cost
    costs: dict[str, float] = {"parameters": least.parameters, "macs": least.macs, "size_mb": least.size_mb}
    if budget.max_latency_ms is not None:
        pairs = zip(within.students, students, strict=True)
        costs["latency_ms"] = min(timings.of(one.fingerprint, built).median_ms for (_, one), built in pairs)
    return costs


def check_budget(budget: Budget, least: Costs, teacher: Costs) -> None:
    """Refuses a budget that no student can meet; where several are such, all are named.

    Raises:
        SearchError: with the feasible range of each.
    """
    faults = []
    for one, allowed in _limits(budget, least):
        low, high = least[one.figure], teacher[one.figure]
        if allowed < low:
            faults.append(
                f"{one.option}={one.text(allowed)} is impossible: the least that a student of these stages has is "
                f"{one.words(low)} ({low / high:.2%} of the teacher's {one.text(high)}); ask for {one.text(low)} to "
                f"{one.words(high)}"
            )
    if faults:
        raise SearchError(f"{'. '.join(faults)}; or allow more to change")


def idle_notes(budget: Budget, teacher: Costs) -> tuple[str, ...]:
    """A note for each limit that the teacher itself keeps to.

    It is no error: a limit in numbers may be that of a machine, whatever the teacher.
    """
    return tuple(
        f"{one.option}={one.text(allowed)} excludes nothing: the teacher itself has {one.words(teacher[one.figure])}; "
        "ask for less, to have a smaller student."
        for one, allowed in _limits(budget, teacher)
        if allowed >= teacher[one.figure] * ROUNDING
    )


def unused_note(budget: Budget, student: Costs, teacher: Costs, *, removal: bool) -> str:
    """What to say of a student that uses little of every limit (those that exclude nothing aside); "" where it does.

    The share that counts is that of the limit that it comes closest to. `removal`: there was a removal stage.
    """
    shares = [
        (student[one.figure] / allowed, f"{one.text(student[one.figure])} of {one.words(allowed)}")
        for one, allowed in _limits(budget, teacher)
        if allowed < teacher[one.figure] * ROUNDING
    ]
    if not shares or max(shares)[0] >= FAR_BELOW:
        return ""
    share, words = max(shares)
    return f"uses {share:.0%} of the budget ({words}): a larger one may keep more accuracy; judge more students" + (
        ", or leave the removal stage out" if removal else ""
    )


def _limits(budget: Budget, known: Costs) -> list[tuple[Bounded, float]]:
    """What the budget bounds and is known, with the limit."""
    pairs = [(one, getattr(budget, one.limit)) for one in BOUNDED]
    return [(one, limit) for one, limit in pairs if limit is not None and one.figure in known]


def budget_text(options: SearchOptions) -> str:
    """The budget as it was asked for, in words: "params 20%, macs 30%", or "none"."""
    return words_of({name: value for name in BUDGETS if (value := getattr(options, name)) is not None}) or "none"


def words_of(budget: Mapping[str, object]) -> str:
    """The same of a budget by option; empty where there is none."""
    return ", ".join(f"{name.removeprefix('max_')} {value}" for name, value in budget.items())
