"""Distillation objectives: one file each, and the registry that names them."""

from __future__ import annotations

from collections.abc import Mapping

from n2n.distill.objectives.base import Batch, Needs, Objective, Seen
from n2n.distill.objectives.ce import CE
from n2n.distill.objectives.kd import KD
from n2n.distill.objectives.logit_mse import LOGIT_MSE
from n2n.distill.objectives.nst import NST

OBJECTIVES: Mapping[str, Objective] = {one.name: one for one in (KD, LOGIT_MSE, CE, NST)}
"""Every objective by name."""

WEIGHTS: Mapping[str, float] = {
    "hint": 100.0,
    "attention": 1000.0,
    "vid": 1.0,
    "factor": 200.0,
    "nd": 1.0,
    "similarity": 3000.0,
    "correlation": 0.003,
    "pkt": 30000.0,
    "fsp": 50.0,
    "crd": 0.8,
}
"""What the loss of an objective is multiplied by where nothing is said; 1 for those that are not named."""

__all__ = ["OBJECTIVES", "WEIGHTS", "Batch", "Needs", "Objective", "Seen"]
