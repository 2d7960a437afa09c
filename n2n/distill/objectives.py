"""Distillation objectives: one pure function each, and the registry that names them.

Every objective takes `(student_logits [B, K], teacher_logits [B, K], labels [B])` and gives a scalar; one that looks at
feature maps declares so by a fourth parameter, `features`, and gets them there. Softmax, KL and Gram matrices are taken
in float32 whatever autocast does, and no gradient ever reaches the teacher.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor

from n2n.distill.features import INSTEAD, Features

Objective = Callable[..., Tensor]
"""`(student_logits, teacher_logits, labels)`, and `features` where `needs_features` says so, to a scalar."""


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


def nst(
    student_logits: Tensor,  # [B, K]
    teacher_logits: Tensor | None,  # [B, K], not looked at
    labels: Tensor,  # [B] int64
    features: Features,  # of the last stage
    *,
    beta: float = 50.0,
) -> Tensor:
    """Neuron selectivity transfer, `CE + b/2 MMD^2` between channel maps (Huang & Wang 2017, arXiv:1707.01219).

    The loss `L_NST = H(y, p_S) + lambda/2 L_MMD^2(F_T, F_S)` of the section on its formulation, with the polynomial
    kernel of degree 2 and c = 0, and lambda = 50: see `selectivity_mmd`. In [0, inf).
    """
    del teacher_logits
    hard = F.cross_entropy(student_logits.float(), labels)
    return hard + 0.5 * beta * selectivity_mmd(features.student, features.teacher)


def selectivity_mmd(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared MMD between the channel maps of two networks with `k(x, y) = (x . y)^2`, averaged over the batch.

    `mean_ij k(s_i, s_j) + mean_ij k(t_i, t_j) - 2 mean_ij k(s_i, t_j)` over maps of length 1 (Huang & Wang 2017, the
    definition of L_MMD^2(F_T, F_S), and their choice of d = 2 and c = 0). In [0, 2], 0 for identical maps. Where sizes
    differ, the larger map is average-pooled to the smaller, axis by axis; the teacher gets no gradient.

    Args:
        student: [B, C_s, *spatial].
        teacher: [B, C_t, *spatial], with as many spatial axes.

    Raises:
        ValueError: other examples or other numbers of axes, or more than three spatial axes that differ in size.
    """
    if student.dim() != teacher.dim() or len(student) != len(teacher):
        raise ValueError(
            f"nst: expected maps [B, C, *spatial] of the same examples from both networks, found {list(student.shape)}"
            f" from the student and {list(teacher.shape)} from the teacher; {INSTEAD}"
        )
    size = [min(pair) for pair in zip(student.shape[2:], teacher.shape[2:], strict=True)]
    ours, theirs = _unit_maps(student, size), _unit_maps(teacher.detach(), size)  # [B, C, P]
    return _mean_kernel(ours, ours) + _mean_kernel(theirs, theirs) - 2 * _mean_kernel(ours, theirs)


_POOLS: Mapping[int, Callable[..., Tensor]] = {
    1: F.adaptive_avg_pool1d,
    2: F.adaptive_avg_pool2d,
    3: F.adaptive_avg_pool3d,
}


def _unit_maps(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps [B, C, *spatial] pooled to a spatial size of P places and brought to length 1: [B, C, P]."""
    maps = maps.float()
    if list(maps.shape[2:]) != list(size):
        if len(size) not in _POOLS:
            raise ValueError(
                f"nst: maps of size {list(maps.shape[2:])} cannot be pooled to {list(size)}: expected at most three"
                f" axes; {INSTEAD}"
            )
        maps = _POOLS[len(size)](maps, tuple(size))
    flat = maps.flatten(2)  # [B, C, P]
    # The authors' code bounds the length from below in this way: dead channels are 0 and have no gradient, not NaN.
    return flat * (flat.square().sum(dim=2, keepdim=True) + 1e-10).rsqrt()


def _mean_kernel(a: Tensor, b: Tensor) -> Tensor:
    """The mean over examples and pairs of `(a_i . b_j)^2`, for [B, C_a, P] and [B, C_b, P].

    By Gram matrices of the channels, [B, C_a, C_b], or of the places, [B, P, P], whichever are smaller: the sum over
    pairs is the inner product of the latter, `sum_ij (a_i . b_j)^2 = <a^T a, b^T b>`.
    """
    pairs = a.shape[1] * b.shape[1]
    if a.shape[2] ** 2 < pairs:
        return ((a.mT @ a) * (b.mT @ b)).sum(dim=(1, 2)).mean() / pairs
    return (a @ b.mT).square().mean()


OBJECTIVES: Mapping[str, Callable[..., Tensor]] = {"kd": kd, "logit_mse": logit_mse, "ce": ce, "nst": nst}
"""Every objective by name."""


def needs_teacher(name: str) -> bool:
    """Whether the objective looks at teacher outputs."""
    return name != "ce"


def needs_features(name: str) -> bool:
    """Whether the objective looks at the feature maps of student and teacher, by the parameter that takes them."""
    return "features" in inspect.signature(OBJECTIVES[name]).parameters


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
