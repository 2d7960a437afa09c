"""Similarity-preserving distillation: which examples of a batch are alike."""

from __future__ import annotations

from torch import Tensor

from n2n.distill.objectives.base import Batch, Needs, Objective, Seen
from n2n.distill.objectives.exact import exact, over_length


@exact
def similarity(student: Seen, teacher: Seen, batch: Batch) -> Tensor:
    """`1/B^2 ||G_t - G_s||_F^2` of the last stage's maps (Tung & Mori, ICCV 2019, arXiv:1907.09682, eq. 4).

    See `gram_distance`. In [0, 4/B]; any widths and sizes compare. It sees one batch: the value depends on its size,
    and with one example it is 0.
    """
    del batch
    return gram_distance(student.maps[0].flatten(1), teacher.maps[0].flatten(1))


def gram_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """`1/n^2 ||G_t - G_s||_F^2`, `G = x x^T` with each row over its L2 norm, of rows x [n, F_s] and [n, F_t].

    In [0, 4/n]. A row of zeros stays one.
    """
    return (over_length(teacher @ teacher.T) - over_length(student @ student.T)).square().mean()  # over [n, n]


SIMILARITY = Objective("similarity", Needs(features="last"), similarity)
