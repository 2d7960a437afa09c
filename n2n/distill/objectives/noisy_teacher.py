"""Logits of a teacher that is noisy anew at every step."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from n2n.distill.objectives.base import Batch, Needs, Objective, Seen
from n2n.distill.objectives.exact import exact
from n2n.distill.objectives.logit_mse import logit_mse


@exact
def noisy_teacher(student: Seen, teacher: Seen, batch: Batch, *, share: float = 0.8, sigma: float = 0.5) -> Tensor:
    """`logit_mse` to `z' = (1 + xi) z_t`, `xi ~ N(0, s^2)` for every logit, of a random share of the examples.

    Sau & Balasubramanian 2016 (arXiv:1610.09650), the section on the noise-based regulariser. In [0, inf). Drawn anew
    at every step from the batch's generator; the other examples have the teacher's logits as they are. The authors take
    the share 0.8 and s from 0.1 to 1; 0.5 is the middle.
    """
    chosen = torch.rand(len(teacher.logits), 1, generator=batch.generator) < share  # [B, 1]
    noise = sigma * torch.randn(teacher.logits.shape, generator=batch.generator)  # [B, K]
    factor = (1 + chosen * noise).to(teacher.logits)
    return logit_mse(student, replace(teacher, logits=factor * teacher.logits), batch)


NOISY_TEACHER = Objective("noisy_teacher", Needs(logits=True), noisy_teacher)
