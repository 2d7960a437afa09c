"""Probabilistic knowledge transfer: whose neighbour each example is."""

from __future__ import annotations

import torch
from torch import Tensor

from n2n.distill.objectives.base import Batch, Needs, Objective, Seen
from n2n.distill.objectives.exact import exact, over_length

FLOOR = 1e-7
"""Added to probabilities before their logs."""


@exact
def pkt(student: Seen, teacher: Seen, batch: Batch) -> Tensor:
    """`1/B^2 sum_i KL(p_t[i] || p_s[i])` of penultimate features (Passalis & Tefas, ECCV 2018, arXiv:1803.10837).

    p [B, B] are the probabilities of `neighbours`; the mean over B^2 is that of the authors' code, of which the weight
    30000 speaks. In [0, inf), 0 for features that are the same or differ in widths by zeros. It sees one batch: the
    value depends on its size, and with one or two examples it is 0 and says nothing.
    """
    del batch
    ours, theirs = neighbours(student.maps[0]), neighbours(teacher.maps[0])
    return (theirs * ((theirs + FLOOR).log() - (ours + FLOOR).log())).mean()


def neighbours(rows: Tensor) -> Tensor:
    """`p[i, j] = k(i, j) / sum_{l != i} k(i, l)` for j other than i, `k = (cos + 1)/2`, of rows [B, D]: [B, B].

    Its eq. 2 and 4: an example is no neighbour of its own, `p[i, i] = 0`.
    """
    units = over_length(rows, 1)
    kernel = ((units @ units.T + 1) / 2).clamp(min=0)
    kernel = kernel * (1 - torch.eye(len(rows), device=rows.device, dtype=rows.dtype))
    return kernel / kernel.sum(dim=1, keepdim=True).clamp(min=FLOOR)


PKT = Objective("pkt", Needs(features="penultimate"), pkt)
