"""The teacher's probabilities in place of the labels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from n2n.distill.objectives.base import Batch, Needs, Objective, Seen
from n2n.distill.objectives.exact import exact


@exact
def soft_targets(student: Seen, teacher: Seen, batch: Batch, *, temperature: float = 1.0) -> Tensor:
    """Cross-entropy against the teacher alone, `-T^2/B sum_b sum_c p_t^T[c] log p_s^T[c]`, without labels. In [0, inf).

    Bucila et al. 2006 (there as regression of logits); eq. 2 of Chen et al. 2020 (SimCLRv2, arXiv:2006.10029); the
    function matching of Beyer et al. 2022 (arXiv:2106.05237), which takes T = 1. It is least where `p_s^T = p_t^T`, and
    then the teacher's entropy and not 0. The factor T^2 keeps the gradient's size, as in `kd`.
    """
    del batch
    ours = F.log_softmax(student.logits / temperature, dim=1)  # [B, K]
    theirs = F.softmax(teacher.logits / temperature, dim=1)  # [B, K]
    return -(temperature**2) * (theirs * ours).sum(dim=1).mean()


SOFT_TARGETS = Objective("soft_targets", Needs(logits=True), soft_targets)
