"""One for all: distillation across families, by exits after each stage that speak the language of logits."""

from __future__ import annotations

from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from n2n.distill.objectives.base import Batch, Needs, Objective, Seen
from n2n.distill.objectives.exact import exact, need
from n2n.distill.objectives.sides import seeded


@exact
def ofa(
    student: Seen,
    teacher: Seen,
    batch: Batch,
    *,
    side: Exits,
    gamma: float = 1.0,
    ce_weight: float = 1.0,
    head_weight: float = 1.0,
    exit_weight: float = 1.0,
) -> Tensor:
    """`c CE + h L(head) + e sum_stages L(exit)` with L of `target_enhanced` (Hao et al., NeurIPS 2023).

    arXiv:2310.19444, eq. 5 and 6. In [0, inf) for g of 1 or more. Head and exits all learn from the teacher's last
    logits; the exits are the objective's own and no part of the student. The authors take g from 1 to 1.5 and the
    weights 1, 1, 1. They give their exits convolutions, too; ours are a pooling and a linear layer.
    """
    labels = need(batch.labels, "ofa", "labels")
    exits = [target_enhanced(logits, teacher.logits, labels, gamma) for logits in side(student.maps)]
    head = target_enhanced(student.logits, teacher.logits, labels, gamma)
    hard = F.cross_entropy(student.logits, labels)
    return ce_weight * hard + head_weight * head + exit_weight * sum(exits, start=head.new_zeros(()))


def target_enhanced(student: Tensor, teacher: Tensor, labels: Tensor, gamma: float = 1.0) -> Tensor:
    """`-1/B sum_b sum_c [(p_t[c] + 1{c = y})^g - 1{c = y}] log p_s[c]` of logits [B, K]; g = 1 is soft targets.

    For g above 1 the label's class weighs more, by the more the surer the teacher is of it. In [0, inf) for g >= 1.
    """
    label = F.one_hot(labels, student.shape[1]).to(student)  # [B, K]
    weights = (F.softmax(teacher, dim=1) + label) ** gamma - label  # [B, K]
    return -(weights * F.log_softmax(student, dim=1)).sum(dim=1).mean()


@final
class Exits(nn.Module):
    """Logits [B, K] from the maps [B, C, *spatial] of each stage: their mean over places, and a linear layer."""

    def __init__(self, widths: list[int], classes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, classes) for width in widths)

    def forward(self, maps: tuple[Tensor, ...]) -> list[Tensor]:
        """One [B, K] for each stage."""
        return [layer(one.flatten(2).mean(dim=2)) for layer, one in zip(self.layers, maps, strict=True)]


def open_ofa(student: Seen, teacher: Seen, *, examples: int, classes: int, seed: int) -> Exits:
    """An exit for each of the student's stages."""
    del teacher, examples
    return seeded(seed, lambda: Exits([maps.shape[1] for maps in student.maps], classes))


OFA = Objective(
    "ofa", Needs(logits=True, labels=True, features="own_stages", side=True), ofa, open_ofa, labels_term=True
)
