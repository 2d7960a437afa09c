"""Relational knowledge distillation: distances of pairs and angles of triples."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from n2n.distill.objectives.base import Batch, Needs, Objective, Seen
from n2n.distill.objectives.exact import exact, over_length

CHUNK = 2**22
"""Numbers of angles that are in memory at a time: of 16 MiB in float32."""


@exact
def rkd(
    student: Seen, teacher: Seen, batch: Batch, *, distance_weight: float = 25.0, angle_weight: float = 50.0
) -> Tensor:
    """`25 D + 50 A` of penultimate features (Park et al., CVPR 2019, arXiv:1904.05068, eq. 7 and 10).

    See `distance_loss` and `angle_loss`. In [0, inf); any widths compare, and neither scale nor rotation nor shift of
    all features matters. It sees one batch: the value depends on its size, and with one example it is 0.
    """
    del batch
    ours, theirs = student.maps[0], teacher.maps[0]  # [B, D]
    return distance_weight * distance_loss(ours, theirs) + angle_weight * angle_loss(ours, theirs)


def distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss of the distances of pairs over their mean, averaged over all B^2 pairs of rows [B, D_s] and [B, D_t].

    The mean distance is over pairs of different examples; where it is 0 the distances stay 0.
    """
    return F.smooth_l1_loss(_distances(student), _distances(teacher))


def angle_loss(student: Tensor, teacher: Tensor, *, chunk: int = CHUNK) -> Tensor:
    """Huber loss of the cosines of angles `i j k` at j, averaged over all B^3 triples of rows [B, D_s] and [B, D_t].

    The cosine is 0 where an arm has no length. The cosines [B, B, B] are taken by parts of at most `chunk` numbers, and
    again in the backward pass, so that the memory does not grow with the cube of the batch.
    """
    size = len(student)
    step = max(1, chunk // (size * max(size, student.shape[1], teacher.shape[1])))
    total = student.new_zeros(())
    for start in range(0, size, step):
        at = slice(start, start + step)
        if step >= size:
            total = total + _angle_part(student, teacher, at)
        else:
            part = checkpoint(_angle_part, student, teacher, at, use_reentrant=False, preserve_rng_state=False)
            total = total + part
    return total / size**3


def _distances(rows: Tensor) -> Tensor:
    """[B, B]; not by matrix products, which cancel where examples are close to each other."""
    found = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    mean = found.sum() / max(1, len(rows) * (len(rows) - 1))
    return found / torch.where(mean > 0, mean, 1.0)


def _angle_part(student: Tensor, teacher: Tensor, at: slice) -> Tensor:
    """The sum over triples whose corner j is one of those."""
    return F.smooth_l1_loss(_cosines(student, at), _cosines(teacher, at), reduction="sum")


def _cosines(rows: Tensor, at: slice) -> Tensor:
    """Of the angles at some rows j: [J, B, B]."""
    arms = over_length(rows[None] - rows[at, None])  # [J, B, D]
    return arms @ arms.mT


RKD = Objective("rkd", Needs(features="penultimate"), rkd)
