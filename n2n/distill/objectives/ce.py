"""Cross-entropy against the labels: no teacher at all."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from n2n.distill.objectives.base import Batch, Needs, Objective, Seen
from n2n.distill.objectives.exact import exact, need


@exact
def ce(student: Seen, teacher: Seen, batch: Batch, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy against the labels, `-1/B sum_b log p_s[y]`; the teacher is not looked at. In [0, inf).

    With `label_smoothing` s the labels are `(1 - s)` of theirs and `s / K` of every class (Szegedy et al. 2016).
    """
    del teacher
    return F.cross_entropy(student.logits, need(batch.labels, "ce", "labels"), label_smoothing=label_smoothing)


CE = Objective("ce", Needs(labels=True), ce, labels_term=True)
