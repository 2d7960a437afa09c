"""What the rows of `policies.py` say: the best student within a budget, means with intervals, tables, words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from statistics import mean, stdev

Row = Mapping[str, str]


def improvements(bests: str) -> list[tuple[int, float]]:
    """The count and what was best from there on, of a column `bests` (`3:0.5 7:0.75`)."""
    pairs = (one.split(":") for one in bests.split())
    return [(int(count), float(best)) for count, best in pairs]


def at(bests: str, budget: int) -> float | None:
    """The best within so many students, of a column `bests`; None where there was none yet."""
    return max((best for count, best in improvements(bests) if count <= budget), default=None)


def until(bests: str, wanted: float) -> float:
    """After how many students as much was reached; infinite where it never was."""
    return next((float(count) for count, best in improvements(bests) if best >= wanted), inf)


def found_at(rows: Sequence[Row], budget: int) -> list[float]:
    """The best within so many students of each row that had one by then."""
    return [best for row in rows if (best := at(row["bests"], budget)) is not None]


def interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Mean, and half the width of its t-interval; nan for one value."""
    from scipy.stats import t

    count = len(values)
    half = float(t.ppf(0.5 + confidence / 2, count - 1)) * stdev(values) / count**0.5 if count > 1 else float("nan")
    return mean(values), half


def difference(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """By how much the mean of `one` is above that of `other`, and half of Welch's 95% interval of it."""
    from scipy.stats import t

    parts = [stdev(values) ** 2 / len(values) for values in (one, other)]
    together = sum(parts)
    if together == 0:
        return mean(one) - mean(other), 0.0
    freedom = together**2 / sum(part**2 / (len(values) - 1) for part, values in zip(parts, (one, other), strict=True))
    return mean(one) - mean(other), float(t.ppf(0.975, freedom)) * together**0.5


def by_agent(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each agent, agents as they first come."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["agent"], []).append(row)
    return found


def cells(rows: Sequence[Row], budgets: Sequence[int]) -> list[str]:
    """`94.05 ± 0.02` for each budget."""
    pairs = (interval(found_at(rows, budget)) for budget in budgets)
    return [f"{middle:.2f} ± {half:.2f}" for middle, half in pairs]


def lines(rows: Sequence[Row], budgets: Sequence[int]) -> list[tuple[str, ...]]:
    """A line for each agent: seeds, best accuracy at each budget, students played for each that was judged."""
    return [
        (
            agent,
            str(len(mine)),
            *cells(mine, budgets),
            f"{mean(int(row['played']) / int(row['judged']) for row in mine):.2f}",
            f"{mean(float(row['cpu_ms_per_student']) for row in mine):.1f} ms",
        )
        for agent, mine in by_agent(rows).items()
    ]


def verdict(rows: Sequence[Row], agent: str, rival: str, budgets: Sequence[int]) -> str:
    """How far an agent is above or below another at each budget, in words."""
    groups = by_agent(rows)
    if agent not in groups or rival not in groups:
        return ""
    words = []
    for budget in budgets:
        gap, half = difference(*(found_at(groups[name], budget) for name in (agent, rival)))
        side = "above" if gap > half else "below" if -gap > half else "level"
        words.append(f"{side} at {budget} ({gap:+.2f} ± {half:.2f})")
    return f"`{agent}` against `{rival}`, in points: {', '.join(words)}."
