"""Activation boundaries: which neurons the teacher fires, with a margin, and not how much."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from n2n.distill.objectives.base import Batch, Needs, Objective, Seen
from n2n.distill.objectives.exact import exact, pairs_of_maps
from n2n.distill.objectives.sides import conv, norm, seeded


@exact
def activation_boundary(
    student: Seen, teacher: Seen, batch: Batch, *, side: nn.ModuleList, margin: float = 1.0, per_element: bool = True
) -> Tensor:
    """`sum_stages ||p(t) relu(m - r(s)) + (1 - p(t)) relu(m + r(s))||^2`, `p = 1[t > 0]` (Heo et al., AAAI 2019).

    arXiv:1811.03233, eq. 6: t and s are the maps before the activation, r is a 1 x 1 convolution and a batch norm. In
    [0, inf), 0 if and only if every neuron is on the teacher's side of 0 by the margin m. It trains first and alone.
    Where sizes differ the larger maps are average-pooled to the smaller.

    Args:
        student: maps [B, C_s, *spatial] of every stage, before the activation.
        teacher: those [B, C_t, *spatial] of the teacher.
        batch: not looked at.
        side: a connector for each stage.
        margin: m.
        per_element: the mean over channels and places, so that the learning rate need not know the sizes; false is the
            paper's sum over neurons, which its code scales by 1/1000 and a power of 2 for each stage.
    """
    del batch
    total = student.logits.new_zeros(())
    for connector, (ours, theirs) in zip(side, pairs_of_maps(student, teacher, "activation_boundary"), strict=True):
        squared = boundary_excess(connector(ours), theirs, margin).square().flatten(1)  # [B, C P]
        total = total + (squared.mean() if per_element else squared.sum(dim=1).mean())
    return total


def boundary_excess(student: Tensor, teacher: Tensor, margin: float) -> Tensor:
    """By how much each neuron falls short of the margin on the teacher's side of 0; shapes are the same, [0, inf)."""
    return F.relu(margin - torch.where(teacher > 0, student, -student))


def open_activation_boundary(student: Seen, teacher: Seen, *, examples: int, classes: int, seed: int) -> nn.ModuleList:
    """A 1 x 1 convolution and a batch norm for each stage."""
    del examples, classes
    pairs = pairs_of_maps(student, teacher, "activation_boundary")

    def connector(ours: Tensor, theirs: Tensor) -> nn.Module:
        axes, width = ours.dim() - 2, theirs.shape[1]
        return nn.Sequential(conv(axes, ours.shape[1], width, bias=False), norm(axes, width))

    return seeded(seed, lambda: nn.ModuleList(connector(*pair) for pair in pairs))


ACTIVATION_BOUNDARY = Objective(
    "activation_boundary",
    Needs(features="stages", before_activation=True, side=True, initial=True),
    activation_boundary,
    open_activation_boundary,
)
