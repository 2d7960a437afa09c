"""The Pareto front: what no other student beats in accuracy and in cost at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from n2n.evaluate.base import Evaluation, Status
from n2n.search.files import write_csv

CostName = Literal["parameters", "macs"]


def pareto(costs: Sequence[float], gains: Sequence[float]) -> list[int]:
    """Indices of the points that no other dominates, cheapest first.

    A point is dominated where another costs no more and gains no less, and is better in one of the two. Of points that
    are equal in both the first stands for all.
    """
    if len(costs) != len(gains):
        raise ValueError(f"{len(costs)} costs and {len(gains)} gains; expected as many of each")
    order = sorted(range(len(costs)), key=lambda i: (costs[i], -gains[i], i))
    kept: list[int] = []
    best = float("-inf")
    for index in order:
        if gains[index] > best:
            kept.append(index)
            best = gains[index]
    return kept


def worths(evaluations: Sequence[Evaluation]) -> list[float | None]:
    """What students are compared by: the accuracies to expect, or the scores where nobody has an accuracy.

    None for whoever has no such number; a student that was only scored does not compare with one that was trained.
    """
    accuracies = [one.expected for one in evaluations]
    return accuracies if any(value is not None for value in accuracies) else [one.score for one in evaluations]


def front(evaluations: Sequence[Evaluation], by: CostName = "parameters") -> tuple[Evaluation, ...]:
    """The students with status OK that no other beats in accuracy (or score, see `worths`) and in cost, cheapest first.

    Students that a prefilter held back are left out.
    """
    fine = [one for one in evaluations if one.status is Status.OK and not one.filtered]
    judged = [(one, worth) for one, worth in zip(fine, worths(fine), strict=True) if worth is not None]
    costs = [float((one.parameters if by == "parameters" else one.macs) or 0) for one, _ in judged]
    return tuple(judged[index][0] for index in pareto(costs, [worth for _, worth in judged]))


FRONT_COLUMNS = (
    "fingerprint",
    "accuracy",
    "parameters",
    "macs",
    "latency_ms",
    "latency_iqr_ms",
    "size_mb",
    "on_parameters",
    "on_macs",
    "score",
    "architecture",
)


def write_front(path: Path, evaluations: Sequence[Evaluation]) -> tuple[Evaluation, ...]:
    """Writes the union of both fronts as CSV, smallest student first, and returns the front over parameters."""
    over_parameters, over_macs = front(evaluations), front(evaluations, by="macs")
    on_parameters = {one.fingerprint for one in over_parameters}
    on_macs = {one.fingerprint for one in over_macs}
    both = {one.fingerprint: one for one in (*over_parameters, *over_macs)}
    rows = [
        (
            one.fingerprint,
            one.expected,
            one.parameters,
            one.macs,
            one.latency_ms,
            one.latency_iqr_ms,
            one.size_mb,
            int(one.fingerprint in on_parameters),
            int(one.fingerprint in on_macs),
            one.score,
            one.architecture,
        )
        for one in sorted(both.values(), key=lambda one: (one.parameters or 0, one.fingerprint))
    ]
    write_csv(path, FRONT_COLUMNS, rows)
    return over_parameters
