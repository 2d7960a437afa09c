"""DisWOT's relation metric as a loss."""

from __future__ import annotations

from torch import Tensor

from n2n.distill.objectives.base import Batch, Needs, Objective, Seen
from n2n.distill.objectives.exact import exact
from n2n.distill.objectives.similarity import gram_distance


@exact
def diswot_relation(student: Seen, teacher: Seen, batch: Batch) -> Tensor:
    """`-M_r = 1/B^2 sum (A_t - A_s)^2`, the metric by which DisWOT ranks students (Dong et al., CVPR 2023).

    arXiv:2303.15678, the distillation of DisWOT+: A is the Gram matrix [B, B] of the maps before pooling with each row
    over its L2 norm. In [0, 4/B]. It is the formula of `similarity`, there at weight 3000, here at 1.
    """
    del batch
    return gram_distance(student.maps[0].flatten(1), teacher.maps[0].flatten(1))


DISWOT_RELATION = Objective("diswot_relation", Needs(features="last"), diswot_relation)
