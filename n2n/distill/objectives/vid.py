"""Variational information distillation: how much of the teacher's maps the student's say."""

from __future__ import annotations

import math
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from n2n.distill.objectives.base import Batch, Needs, Objective, Seen
from n2n.distill.objectives.exact import exact, pairs_of_maps
from n2n.distill.objectives.sides import conv, seeded

FLOOR = 1e-5
"""Below any variance, so that it never is 0."""
START = 5.0
"""The variance that every channel starts from."""


@exact
def vid(student: Seen, teacher: Seen, batch: Batch, *, side: Guesses) -> Tensor:
    """`sum_stages mean[log s_c + (t - m(s))^2 / (2 s_c^2)]`, a Gaussian's negative log likelihood (Ahn et al. 2019).

    CVPR 2019, arXiv:1904.05835, eq. 4 to 6, without the constant: `s_c^2 = softplus(a_c) + 1e-5` is learned for each
    channel, m is a network of 1 x 1 convolutions. The mean is over batch, channels and places, as in the code behind
    the usual weight 1; the paper sums. It may be negative. Where sizes differ the larger maps are average-pooled.
    """
    del batch
    total = student.logits.new_zeros(())
    for guess, (ours, theirs) in zip(side.stages, pairs_of_maps(student, teacher, "vid"), strict=True):
        mean, variance = guess(ours)
        total = total + gaussian_loss(theirs, mean, variance)
    return total


def gaussian_loss(target: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """The mean of `log s + (t - m)^2 / (2 s^2)` for maps [B, C, *spatial] and variances s^2 [C].

    For one value it is least at `s^2 = (t - m)^2`.
    """
    variance = variance.view(-1, *[1] * (target.dim() - 2))  # [C, 1, ...]
    return (0.5 * variance.log() + (target - mean).square() / (2 * variance)).mean()


@final
class Guess(nn.Module):
    """The teacher's maps of one stage by the student's: a mean [B, C_t, *spatial], and variances [C_t]."""

    def __init__(self, axes: int, inputs: int, outputs: int) -> None:
        super().__init__()
        widths = (inputs, outputs, outputs)
        self.layers = nn.ModuleList(conv(axes, width, outputs) for width in widths)
        self.alpha = nn.Parameter(torch.full((outputs,), math.log(math.expm1(START - FLOOR))))  # [C_t]

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variances."""
        first, second, last = self.layers
        return last(F.relu(second(F.relu(first(maps))))), F.softplus(self.alpha) + FLOOR


@final
class Guesses(nn.Module):
    """One for each stage."""

    def __init__(self, stages: list[Guess]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)


def open_vid(student: Seen, teacher: Seen, *, examples: int, classes: int, seed: int) -> Guesses:
    """A network of 1 x 1 convolutions and the variances for each stage."""
    del examples, classes
    pairs = pairs_of_maps(student, teacher, "vid")
    return seeded(seed, lambda: Guesses([Guess(s.dim() - 2, s.shape[1], t.shape[1]) for s, t in pairs]))


VID = Objective("vid", Needs(features="stages", side=True), vid, open_vid)
