"""Knowledge distillation: the teacher's softened probabilities beside the labels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from n2n.distill.objectives.base import Batch, Needs, Objective, Seen
from n2n.distill.objectives.exact import exact, need


@exact
def kd(student: Seen, teacher: Seen, batch: Batch, *, alpha: float = 0.9, temperature: float = 4.0) -> Tensor:
    """Knowledge distillation, `(1 - a) CE + a T^2 KL(p_t^T || p_s^T)` (Hinton et al. 2015). In [0, inf).

    `p^T = softmax(z / T)`. The KL is summed over classes and averaged over the batch; the factor T^2 keeps its gradient
    of the size of the cross-entropy's.
    """
    soft = divergence(student.logits, teacher.logits, temperature)
    hard = F.cross_entropy(student.logits, need(batch.labels, "kd", "labels"))
    return (1 - alpha) * hard + alpha * temperature**2 * soft


def divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """`1/B sum_b KL(p_t^T || p_s^T)` of logits [B, K] both, without the factor T^2. In [0, inf), 0 for equal logits."""
    ours = F.log_softmax(student / temperature, dim=1)  # [B, K]
    theirs = F.log_softmax(teacher / temperature, dim=1)  # [B, K]
    return F.kl_div(ours, theirs, reduction="batchmean", log_target=True)


KD = Objective("kd", Needs(logits=True, labels=True), kd, labels_term=True)
