"""Weighted transformed teacher matching: a softened teacher, a student as it is."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from n2n.distill.objectives.base import Batch, Needs, Objective, Seen
from n2n.distill.objectives.exact import exact


@exact
def wttm(student: Seen, teacher: Seen, batch: Batch, *, gamma: float = 0.2) -> Tensor:
    """`1/B sum_b w KL(q || p_s)` with `q = p_t^g / w` and `w = sum_c p_t[c]^g` (Zheng & Yang, ICLR 2024).

    arXiv:2402.11148, the objective WTTM; the student is at T = 1. In [0, inf), and the KL itself at g = 1. Examples of
    which the teacher is unsure weigh more: w is in [1, K^(1 - g)] for g up to 1. The authors take g between 0.1 and 0.4
    by the pair of networks, and add the cross-entropy: `"ce + wttm:4"`.
    """
    del batch
    powers = gamma * F.log_softmax(teacher.logits, dim=1)  # [B, K], log p_t^g
    ours = F.log_softmax(student.logits, dim=1)  # [B, K]
    each = F.kl_div(ours, F.log_softmax(powers, dim=1), reduction="none", log_target=True).sum(dim=1)  # [B]
    return (powers.logsumexp(dim=1).exp() * each).mean()


WTTM = Objective("wttm", Needs(logits=True), wttm)
