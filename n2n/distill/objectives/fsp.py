"""The flow of a solution procedure: how a stage turns its first maps into its last."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from n2n.distill.objectives.base import Batch, Needs, Objective, Seen
from n2n.distill.objectives.exact import exact, one_size
from n2n.distill.objectives.sides import conv, seeded


@exact
def fsp(student: Seen, teacher: Seen, batch: Batch, *, side: nn.ModuleList) -> Tensor:
    """`sum_stages mean (G_t - G_s)^2`, G [B, C_1, C_2] the stage's FSP matrix (Yim et al., CVPR 2017, eq. 1 and 2).

    See `flow`. In [0, inf). The mean is over batch and entries, as in the code behind the usual weight 50; the paper
    sums over entries. It trains first and alone. Sizes may differ, for G is a mean over places.
    """
    del batch
    ours = [adapter(maps) for adapter, maps in zip(side, student.maps, strict=True)]
    total = student.logits.new_zeros(())
    for matrix_s, matrix_t in zip(_flows(ours), _flows(teacher.maps), strict=True):
        total = total + (matrix_t - matrix_s).square().mean()
    return total


def flow(first: Tensor, last: Tensor) -> Tensor:
    """`G = 1/P sum_places F1 F2^T` of maps [B, C_1, *spatial] and [B, C_2, *spatial]: [B, C_1, C_2].

    Where a stage's first and last maps differ in size, the larger are average-pooled to the smaller.
    """
    one, other = (maps.flatten(2) for maps in one_size(first, last, "fsp"))  # [B, C, P]
    return one @ other.mT / one.shape[2]


def _flows(maps: Sequence[Tensor]) -> list[Tensor]:
    """One matrix for each stage, of maps first, last, first, last, ..."""
    return [flow(first, last) for first, last in zip(maps[::2], maps[1::2], strict=True)]


def open_fsp(
    student: Seen, teacher: Seen, *, examples: int, classes: int, seed: int, adapter: bool = False
) -> nn.ModuleList:
    """What changes nothing for each map; with `adapter`, a 1 x 1 convolution to the teacher's width where they differ.

    Raises:
        ValueError: widths differ, and no adapter is asked for.
    """
    del examples, classes
    pairs = [
        (ours.dim() - 2, ours.shape[1], theirs.shape[1])
        for ours, theirs in zip(student.maps, teacher.maps, strict=True)
    ]
    unequal = [pair for pair in pairs if pair[1] != pair[2]]
    if unequal and not adapter:
        raise ValueError(
            f"fsp: expected maps as wide as the teacher's, found {unequal[0][1]} channels in the student and"
            f" {unequal[0][2]} in the teacher; use 'fsp,adapter=true' to bring them to the teacher's width, or"
            " 'similarity' or 'attention', which compare any widths"
        )

    def one(axes: int, ours: int, theirs: int) -> nn.Module:
        return nn.Identity() if ours == theirs else conv(axes, ours, theirs)

    return seeded(seed, lambda: nn.ModuleList(one(*pair) for pair in pairs))


FSP = Objective("fsp", Needs(features="stage_ends", side=True, initial=True), fsp, open_fsp)
