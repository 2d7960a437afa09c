"""The Pareto front: what no other student beats in accuracy and in cost at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from n2n.evaluate.base import Evaluation, Status

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


def front(evaluations: Sequence[Evaluation], by: CostName = "parameters") -> tuple[Evaluation, ...]:
    """The students with status OK that are Pareto-optimal in accuracy against parameters or MACs, cheapest first."""
    judged = [one for one in evaluations if one.status is Status.OK and one.expected is not None]
    costs = [float((one.parameters if by == "parameters" else one.macs) or 0) for one in judged]
    gains = [one.expected if one.expected is not None else 0.0 for one in judged]
    return tuple(judged[index] for index in pareto(costs, gains))
