"""What objectives on feature maps see of a batch, and what to say where a network has none."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

INSTEAD = "use the objective 'kd', 'logit_mse' or 'ce', which look at no features"
"""What to do where there are no feature maps."""


@dataclass(frozen=True)
class Features:
    """What an objective on features sees of one batch; B and the examples are the same on both sides.

    Attributes:
        student: the student's maps at its last stage, [B, C_s, *spatial], with gradient.
        teacher: the teacher's, [B, C_t, *spatial]; widths and sizes may differ from the student's.
    """

    student: Tensor
    teacher: Tensor
