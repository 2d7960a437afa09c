"""DisWOT's semantic metric as a loss."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from n2n.distill.objectives.base import Batch, Needs, Objective, Seen
from n2n.distill.objectives.exact import exact, need, over_length


@exact
def diswot_semantic(student: Seen, teacher: Seen, batch: Batch) -> Tensor:
    """`-M_s = 1/(K C) sum_k ||E_k(T) - E_k(S)||_F^2`, by which DisWOT ranks students (Dong et al., CVPR 2023).

    arXiv:2303.15678, the distillation of DisWOT+; see `semantic_distance`. In [0, 4]. g_k [C] is the gradient of the
    mean cross-entropy by the weights of class k in the last linear layer: see `classifier_gradient`.

    Raises:
        ValueError: other widths before the classifier than the teacher's.
    """
    labels = need(batch.labels, "diswot_semantic", "labels")
    ours, theirs = student.maps[0], teacher.maps[0]  # [B, C]
    if ours.shape[1] != theirs.shape[1]:
        raise ValueError(
            f"diswot_semantic: expected as many channels before the classifier as the teacher has, {theirs.shape[1]},"
            f" found {ours.shape[1]}; use 'diswot_relation' or 'similarity', which compare any widths"
        )
    return semantic_distance(
        classifier_gradient(student.logits, ours, labels), classifier_gradient(teacher.logits, theirs, labels)
    )


def classifier_gradient(logits: Tensor, features: Tensor, labels: Tensor) -> Tensor:
    """The gradient [K, C] of the mean cross-entropy by the weight of a linear layer, `(p - y)^T f / B`.

    Args:
        logits: [B, K], what the layer gives.
        features: [B, C], what it takes.
        labels: [B].
    """
    error = F.softmax(logits, dim=1) - F.one_hot(labels, logits.shape[1]).to(logits)  # [B, K]
    return error.T @ features / len(logits)


def semantic_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """`1/(K C) sum_k ||E_k(T) - E_k(S)||_F^2`, E_k = g_k g_k^T with each row over its L2 norm, of g [K, C].

    In [0, 4]. Row i of E_k is sign(g_i) g/||g||: with s the signs and u = g/||g|| the squared distance of two such
    matrices is |s_T|^2 |u_T|^2 + |s_S|^2 |u_S|^2 - 2 (s_T.s_S)(u_T.u_S), which needs no [K, C, C]. Its gradient leaves
    the signs as they are. A row of zeros stays one.
    """
    signs, units = (teacher.sign(), student.sign()), (over_length(teacher), over_length(student))

    def product(one: int, other: int) -> Tensor:
        return (signs[one] * signs[other]).sum(dim=1) * (units[one] * units[other]).sum(dim=1)  # [K]

    distances = (product(0, 0) + product(1, 1) - 2 * product(0, 1)).clamp(min=0)  # rounding goes below 0
    return distances.mean() / teacher.shape[1]


DISWOT_SEMANTIC = Objective("diswot_semantic", Needs(logits=True, labels=True, features="penultimate"), diswot_semantic)
