"""Attention transfer: where a network looks, stage by stage."""

from __future__ import annotations

from torch import Tensor

from n2n.distill.objectives.base import Batch, Needs, Objective, Seen
from n2n.distill.objectives.exact import exact, lengths, over_length, pairs_of_maps


@exact
def attention(student: Seen, teacher: Seen, batch: Batch, *, squared: bool = False) -> Tensor:
    """Distance of attention maps, `sum_stages 1/(2 P) 1/B sum_b ||Q_s - Q_t||_2` (Zagoruyko & Komodakis, ICLR 2017).

    `Q = vec(sum_c F^2) / ||.||_2` over the P places of a stage. arXiv:1612.03928, eq. 2: its factor b/2 is 1000/(P B)
    for each layer, so that the weight of this loss is 1000. In [0, stages/2], 0 for equal maps and for maps that
    differ by a factor; widths may differ, and the larger maps are average-pooled to the smaller.

    Args:
        student: maps [B, C_s, *spatial] of every stage.
        teacher: maps [B, C_t, *spatial] of every stage.
        batch: not looked at.
        squared: the authors' code instead, `sum_stages mean (Q_s - Q_t)^2` over batch and places; also at weight 1000.
    """
    del batch
    total = student.logits.new_zeros(())
    for ours, theirs in pairs_of_maps(student, teacher, "attention"):
        difference = attention_map(ours) - attention_map(theirs)  # [B, P]
        if squared:
            total = total + difference.square().mean()
        else:
            total = total + 0.5 * lengths(difference, 1).mean() / difference.shape[1]
    return total


def attention_map(maps: Tensor) -> Tensor:
    """`vec(sum_c F^2)` over its length, of maps [B, C, *spatial]: [B, P]; 0 everywhere where all maps are dead."""
    return over_length(maps.square().sum(dim=1).flatten(1), 1)


ATTENTION = Objective("attention", Needs(features="stages"), attention)
