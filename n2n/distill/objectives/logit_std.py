"""Distillation of standardised logits: what a student need not match is the teacher's scale."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from n2n.distill.objectives.base import Batch, Needs, Objective, Seen
from n2n.distill.objectives.exact import exact, lengths, need
from n2n.distill.objectives.kd import divergence


@exact
def logit_std(
    student: Seen,
    teacher: Seen,
    batch: Batch,
    *,
    ce_weight: float = 0.1,
    kd_weight: float = 9.0,
    temperature: float = 2.0,
) -> Tensor:
    """`c CE + k T^2 KL(p_t^T || p_s^T)` of standardised logits (Sun et al., CVPR 2024, arXiv:2403.01427, alg. 1 and 2).

    In [0, inf). Each row of logits is standardised by itself (`standardised`), so that the KL does not change by an
    affine map of positive slope of any row; the cross-entropy is that of the logits as they are.
    """
    hard = F.cross_entropy(student.logits, need(batch.labels, "logit_std", "labels"))
    soft = divergence(standardised(student.logits), standardised(teacher.logits), temperature)
    return ce_weight * hard + kd_weight * temperature**2 * soft


def standardised(logits: Tensor) -> Tensor:
    """Each row over its deviation, `(z - mean)/(std + 1e-7)` with `std^2 = 1/K sum_c (z[c] - mean)^2`: [B, K].

    The paper divides by K; the authors' code by K - 1, which is the same at another T. A constant row is 0 and has no
    gradient by its deviation.
    """
    centred = logits - logits.mean(dim=1, keepdim=True)
    deviation = lengths(centred, 1, keepdim=True) / math.sqrt(logits.shape[1])  # [B, 1]
    return centred / (deviation + 1e-7)


LOGIT_STD = Objective("logit_std", Needs(logits=True, labels=True), logit_std, labels_term=True)
