"""DIST: probabilities that correlate with a strong teacher's, within examples and within classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from n2n.distill.objectives.base import Batch, Needs, Objective, Seen
from n2n.distill.objectives.exact import exact, lengths, need, over_length


@exact
def dist(
    student: Seen,
    teacher: Seen,
    batch: Batch,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
) -> Tensor:
    """`CE + b T^2 mean_rows(1 - r) + g T^2 mean_columns(1 - r)`, r Pearson's correlation of `p_s^T` and `p_t^T`.

    Huang et al., NeurIPS 2022 (arXiv:2205.10536), eq. 8 to 10: rows are examples, columns classes. In [0, inf). The
    authors take T = 1, and 4 on CIFAR. The columns see one batch: the value depends on its size, and with one example
    every column is constant, so that they count 1 and say nothing.
    """
    hard = F.cross_entropy(student.logits, need(batch.labels, "dist", "labels"))
    ours, theirs = (F.softmax(seen.logits / temperature, dim=1) for seen in (student, teacher))  # [B, K]
    within_rows = 1 - correlation(ours, theirs).mean()
    within_columns = 1 - correlation(ours.T, theirs.T).mean()
    return hard + temperature**2 * (beta * within_rows + gamma * within_columns)


def correlation(one: Tensor, other: Tensor) -> Tensor:
    """Pearson's correlation of the rows of [R, N] and [R, N]: [R], in [-1, 1]; 0 where a row is constant."""
    ours, theirs = (over_length(_centred(rows), 1) for rows in (one, other))
    return (ours * theirs).sum(dim=1)


def _centred(rows: Tensor) -> Tensor:
    """Rows [R, N] less their means; what is left of a constant one by rounding is no direction, and becomes 0."""
    centred = rows - rows.mean(dim=1, keepdim=True)
    noise = 10 * torch.finfo(rows.dtype).eps * lengths(rows.detach(), 1, keepdim=True)
    return torch.where(lengths(centred.detach(), 1, keepdim=True) > noise, centred, 0.0)


DIST = Objective("dist", Needs(logits=True, labels=True), dist, labels_term=True)
