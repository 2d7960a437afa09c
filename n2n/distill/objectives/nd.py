"""KD++: penultimate features that point to the teacher's class means, and are as long as the teacher's at least."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from n2n.distill.objectives.base import Batch, Needs, Objective, Seen
from n2n.distill.objectives.exact import exact, full, lengths, need
from n2n.distill.objectives.sides import seeded


@exact
def nd(student: Seen, teacher: Seen, batch: Batch, *, side: nn.Module) -> Tensor:
    """`1/B sum_b (1 - s.e_y / max(||s||, ||t||))` of penultimate features (Wang et al. 2023, arXiv:2305.17007, eq. 10).

    In [0, 2]: 0 where s points to e_y, the unit mean of its class in the teacher's features, and is as long as the
    teacher's t. Where widths differ s is projected first. Where both are zero it is 1 and has no gradient.
    """
    labels, means = need(batch.labels, "nd", "labels"), need(batch.class_means, "nd", "class means of the teacher")
    ours = side(student.maps[0])  # [B, D]
    return direction_loss(ours, teacher.maps[0], full(means).to(ours)[labels])


def direction_loss(student: Tensor, teacher: Tensor, directions: Tensor) -> Tensor:
    """The formula of `nd` for features and unit directions [B, D]."""
    longest = torch.maximum(lengths(student, 1), lengths(teacher, 1))  # [B]
    along = (student * directions).sum(dim=1)  # [B]
    return (1 - along / torch.where(longest > 0, longest, torch.inf)).mean()


def open_nd(student: Seen, teacher: Seen, *, examples: int, classes: int, seed: int) -> nn.Module:
    """A linear layer where the widths differ, and what changes nothing where they do not."""
    del examples, classes
    ours, theirs = student.maps[0].shape[1], teacher.maps[0].shape[1]
    return seeded(seed, lambda: nn.Identity() if ours == theirs else nn.Linear(ours, theirs))


ND = Objective("nd", Needs(labels=True, class_means=True, features="penultimate", side=True), nd, open_nd)
