"""FitNets: the student's middle maps, by a regressor, as hints at the teacher's."""

from __future__ import annotations

from torch import Tensor, nn

from n2n.distill.objectives.base import Batch, Needs, Objective, Seen
from n2n.distill.objectives.exact import exact, one_size
from n2n.distill.objectives.sides import conv, seeded


@exact
def hint(student: Seen, teacher: Seen, batch: Batch, *, side: nn.Module, per_element: bool = True) -> Tensor:
    """`1/2 ||F_t - r(F_s)||^2` of one middle stage, averaged over the batch (Romero et al., ICLR 2015, eq. 3).

    arXiv:1412.6550. In [0, inf). The regressor r is a convolution: of size 1, as the paper's rule gives it for maps of
    equal size; where sizes differ the larger maps are average-pooled to the smaller. The paper trains on this alone
    first, and on `kd` afterwards.

    Args:
        student: one map [B, C_s, *spatial].
        teacher: one map [B, C_t, *spatial].
        batch: not looked at.
        side: the regressor.
        per_element: the mean over channels and places, with the usual weight 100; false is the paper's sum.
    """
    del batch
    ours, theirs = one_size(student.maps[0], teacher.maps[0], "hint")
    guess: Tensor = side(ours)
    squared = 0.5 * (theirs - guess).square().flatten(1)  # [B, C P]
    return squared.mean() if per_element else squared.sum(dim=1).mean()


def open_hint(student: Seen, teacher: Seen, *, examples: int, classes: int, seed: int) -> nn.Module:
    """The regressor."""
    del examples, classes
    ours, theirs = one_size(student.maps[0], teacher.maps[0], "hint")
    return seeded(seed, lambda: conv(ours.dim() - 2, ours.shape[1], theirs.shape[1]))


HINT = Objective("hint", Needs(features="middle", side=True, initial=True), hint, open_hint)
