"""Squared error of logits."""

from __future__ import annotations

from torch import Tensor

from n2n.distill.objectives.base import Batch, Needs, Objective, Seen
from n2n.distill.objectives.exact import exact


@exact
def logit_mse(student: Seen, teacher: Seen, batch: Batch) -> Tensor:
    """Squared error of logits, `1/(2B) sum_b ||z_s - z_t||^2` (Ba & Caruana 2014; Ashok et al. 2018). In [0, inf)."""
    del batch
    return 0.5 * (student.logits - teacher.logits).square().sum(dim=1).mean()


LOGIT_MSE = Objective("logit_mse", Needs(logits=True), logit_mse)
