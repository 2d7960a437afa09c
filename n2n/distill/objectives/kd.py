"""Knowledge distillation: the teacher's softened probabilities beside the labels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from n2n.distill.objectives.base import Batch, Needs, Objective, Seen


def kd(student: Seen, teacher: Seen, batch: Batch, *, alpha: float = 0.9, temperature: float = 4.0) -> Tensor:
    """Knowledge distillation, `(1 - a) CE + a T^2 KL(p_t^T || p_s^T)` (Hinton et al. 2015). In [0, inf).

    `p^T = softmax(z / T)`. The KL is summed over classes and averaged over the batch; the factor T^2 keeps its gradient
    of the size of the cross-entropy's.
    """
    assert batch.labels is not None
    ours = F.log_softmax(student.logits.float() / temperature, dim=1)  # [B, K]
    theirs = F.log_softmax(teacher.logits.detach().float() / temperature, dim=1)  # [B, K]
    divergence = F.kl_div(ours, theirs, reduction="batchmean", log_target=True)
    hard = F.cross_entropy(student.logits.float(), batch.labels)
    return (1 - alpha) * hard + alpha * temperature**2 * divergence


KD = Objective("kd", Needs(logits=True, labels=True), kd, labels_term=True)
