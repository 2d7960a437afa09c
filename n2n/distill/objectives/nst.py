"""Neuron selectivity transfer: channels of the last stage that are selective of the same places."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from n2n.distill.objectives.base import Batch, Needs, Objective, Seen
from n2n.distill.objectives.exact import exact, full, need, one_size


@exact
def nst(student: Seen, teacher: Seen, batch: Batch, *, beta: float = 50.0) -> Tensor:
    """Neuron selectivity transfer, `CE + b/2 MMD^2` between channel maps (Huang & Wang 2017, arXiv:1707.01219).

    The loss `L_NST = H(y, p_S) + lambda/2 L_MMD^2(F_T, F_S)` of the section on its formulation, with the polynomial
    kernel of degree 2 and c = 0, and lambda = 50: see `selectivity_mmd`. In [0, inf).
    """
    hard = F.cross_entropy(student.logits, need(batch.labels, "nst", "labels"))
    return hard + 0.5 * beta * selectivity_mmd(student.maps[0], teacher.maps[0])


def selectivity_mmd(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared MMD between the channel maps of two networks with `k(x, y) = (x . y)^2`, averaged over the batch.

    `mean_ij k(s_i, s_j) + mean_ij k(t_i, t_j) - 2 mean_ij k(s_i, t_j)` over maps of length 1 (Huang & Wang 2017, the
    definition of L_MMD^2(F_T, F_S), and their choice of d = 2 and c = 0). In [0, 2], 0 for identical maps. Where sizes
    differ, the larger map is average-pooled to the smaller, axis by axis; the teacher gets no gradient.

    Args:
        student: [B, C_s, *spatial].
        teacher: [B, C_t, *spatial], with as many spatial axes, or tokens of a square grid.

    Raises:
        ValueError: other examples or other numbers of axes, or more than three spatial axes that differ in size.
    """
    ours, theirs = map(_unit_maps, one_size(full(student), full(teacher.detach()), "nst"))  # [B, C, P]
    return _mean_kernel(ours, ours) + _mean_kernel(theirs, theirs) - 2 * _mean_kernel(ours, theirs)


def _unit_maps(maps: Tensor) -> Tensor:
    """Maps [B, C, *spatial] brought to length 1: [B, C, P] for P places."""
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


NST = Objective("nst", Needs(labels=True, features="last"), nst, labels_term=True)
