"""Decoupled knowledge distillation: how sure the teacher is, apart from what else it might have been."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from n2n.distill.objectives.base import Batch, Needs, Objective, Seen
from n2n.distill.objectives.exact import exact, need
from n2n.distill.objectives.kd import divergence


@exact
def dkd(
    student: Seen,
    teacher: Seen,
    batch: Batch,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
    warmup_epochs: float = 20.0,
) -> Tensor:
    """`CE + w (a TCKD + b NCKD)` (Zhao et al., CVPR 2022, arXiv:2203.08679, eq. 7). In [0, inf).

    See `target_divergence` and `other_divergence`, both times T^2; `w = min(1, epochs done / warmup_epochs)`, 1 where
    `warmup_epochs` is 0. The authors take b from 2 to 8 by the pair of networks, and 20 of 240 epochs to warm up: with
    a short schedule set `warmup_epochs`.
    """
    labels = need(batch.labels, "dkd", "labels")
    hard = F.cross_entropy(student.logits, labels)
    if student.logits.shape[1] == 1:  # nothing to tell apart
        return hard
    target = target_divergence(student.logits, teacher.logits, labels, temperature)
    others = other_divergence(student.logits, teacher.logits, labels, temperature)
    warm = min(1.0, batch.epoch / warmup_epochs) if warmup_epochs > 0 else 1.0
    return hard + warm * temperature**2 * (alpha * target + beta * others)


def target_divergence(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """TCKD without T^2: `1/B sum_b KL([p_t[y], 1 - p_t[y]] || [p_s[y], 1 - p_s[y]])`, p at T, of logits [B, K].

    `log(1 - p[y])` is the log of the other classes' sum, which does not cancel where p[y] is close to 1.
    """
    ours, theirs = (_log_split(logits / temperature, labels) for logits in (student, teacher))
    return F.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def other_divergence(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """NCKD without T^2: the KL between the softmaxes over all classes but the label's, mean over the batch.

    With p at T it holds `KL(p_t || p_s) = TCKD + (1 - p_t[y]) NCKD` for each example (eq. 6).
    """
    return divergence(other_classes(student, labels), other_classes(teacher, labels), temperature)


def other_classes(logits: Tensor, labels: Tensor) -> Tensor:
    """The logits [B, K] without those of the labels [B]: [B, K - 1], in their order."""
    at = torch.arange(logits.shape[1] - 1, device=logits.device)  # [K - 1]
    return logits.gather(1, at + (at >= labels[:, None]).long())


def _log_split(logits: Tensor, labels: Tensor) -> Tensor:
    """The logs of p[y] and 1 - p[y]: [B, 2]."""
    own = logits.gather(1, labels[:, None])  # [B, 1]
    rest = other_classes(logits, labels).logsumexp(dim=1, keepdim=True)  # [B, 1]
    return F.log_softmax(torch.cat([own, rest], dim=1), dim=1)


DKD = Objective("dkd", Needs(logits=True, labels=True), dkd, labels_term=True)
