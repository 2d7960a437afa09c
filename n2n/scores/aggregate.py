"""Several scores of a population as one: the sum of the logarithms of their ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def aggregate(columns: Mapping[str, Sequence[float]]) -> list[float]:
    """The logarithms of relative ranks, added up over the scores.

        s_i = sum_k ln(rank_k(i) / n)

    `rank_k(i)` counts from 1 for the lowest of score k to n for the highest. J. Lee, B. Ham, *AZ-NAS: Assembling
    Zero-Cost Proxies for Network Architecture Search*, CVPR 2024. Equal values share the mean of their ranks. NaN means
    that a score is missing: such members share the lowest ranks, below -inf. In (-inf, 0]; 0 is best in all scores.
    The values depend on who else is there: only members of one call compare.

    Args:
        columns: by the name of a score, its values for the n members in one order, higher is better.

    Raises:
        ValueError: no scores, or not the same number of members in each.
    """
    sizes = {name: len(values) for name, values in columns.items()}
    if len(set(sizes.values())) != 1:
        raise ValueError(f"aggregate: expected at least one score and as many values in each, found {sizes or 'none'}")
    logs = [[math.log(rank / len(values)) for rank in ranks(values)] for values in columns.values()]
    return [math.fsum(member) for member in zip(*logs, strict=True)]


def ranks(values: Sequence[float]) -> list[float]:
    """The rank of each value, 1 for the lowest; equal ones share the mean of theirs, and NaN are equal and lowest."""
    keys = [(not math.isnan(value), 0.0 if math.isnan(value) else value) for value in values]
    order = sorted(keys)
    first = {key: index for index, key in reversed(list(enumerate(order)))}
    last = {key: index for index, key in enumerate(order)}
    return [(first[key] + last[key]) / 2 + 1 for key in keys]
