"""Distillation objectives on logits: one pure function each, and the registry that names them.

Every objective takes `(student_logits [B, K], teacher_logits [B, K], labels [B])` and gives a scalar. Softmax and KL
are taken in float32 whatever autocast does, and no gradient ever reaches the teacher.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial

import torch.nn.functional as F
from torch import Tensor

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]


def ce(
    student_logits: Tensor,  # [B, K]
    teacher_logits: Tensor | None,  # [B, K], not looked at
    labels: Tensor,  # [B] int64
    *,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy against the labels, `-1/B sum_b log p_s[y]`; the teacher is not looked at. In [0, inf)."""
    del teacher_logits
    return F.cross_entropy(student_logits.float(), labels, label_smoothing=label_smoothing)


def kd(
    student_logits: Tensor,  # [B, K]
    teacher_logits: Tensor,  # [B, K]
    labels: Tensor,  # [B] int64
    *,
    alpha: float = 0.9,
    temperature: float = 4.0,
) -> Tensor:
    """Knowledge distillation, `(1 - a) CE + a T^2 KL(p_t^T || p_s^T)` (Hinton et al. 2015). In [0, inf).

    `p^T = softmax(z / T)`. The KL is summed over classes and averaged over the batch; the factor T^2 keeps its gradient
    of the size of the cross-entropy's.
    """
    student = F.log_softmax(student_logits.float() / temperature, dim=1)  # [B, K]
    teacher = F.log_softmax(teacher_logits.detach().float() / temperature, dim=1)  # [B, K]
    divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    hard = F.cross_entropy(student_logits.float(), labels)
    return (1 - alpha) * hard + alpha * temperature**2 * divergence


def logit_mse(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """Squared error of logits, `1/(2B) sum_b ||z_s - z_t||^2` (Ba & Caruana 2014; Ashok et al. 2018). In [0, inf)."""
    del labels
    difference = student_logits.float() - teacher_logits.detach().float()  # [B, K]
    return 0.5 * difference.square().sum(dim=1).mean()


OBJECTIVES: Mapping[str, Callable[..., Tensor]] = {"kd": kd, "logit_mse": logit_mse, "ce": ce}
"""Every objective by name."""


def needs_teacher(name: str) -> bool:
    """Whether the objective looks at teacher outputs."""
    return name != "ce"


def make_objective(name: str, options: Mapping[str, float] | None = None) -> Objective:
    """The objective of a name with its options bound.

    Raises:
        ValueError: no such objective, or no such option of it; the valid ones are listed.
    """
    if name not in OBJECTIVES:
        raise ValueError(f"unknown objective {name!r}; choose one of {', '.join(OBJECTIVES)}")
    function = OBJECTIVES[name]
    known = [key for key, value in inspect.signature(function).parameters.items() if value.kind is value.KEYWORD_ONLY]
    unknown = sorted(set(options or {}) - set(known))
    if unknown:
        raise ValueError(f"objective {name!r} has no option {unknown[0]!r}; it has {', '.join(known) or 'none'}")
    return partial(function, **(options or {}))
