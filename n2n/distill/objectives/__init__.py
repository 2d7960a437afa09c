"""Distillation objectives: one file each, and the registry that names them."""

from __future__ import annotations

from n2n.distill.objectives.activation_boundary import ACTIVATION_BOUNDARY
from n2n.distill.objectives.attention import ATTENTION
from n2n.distill.objectives.base import Batch, Needs, Objective, Seen
from n2n.distill.objectives.ce import CE
from n2n.distill.objectives.correlation import CORRELATION
from n2n.distill.objectives.crd import CRD
from n2n.distill.objectives.dist import DIST
from n2n.distill.objectives.diswot_relation import DISWOT_RELATION
from n2n.distill.objectives.diswot_semantic import DISWOT_SEMANTIC
from n2n.distill.objectives.dkd import DKD
from n2n.distill.objectives.factor import FACTOR
from n2n.distill.objectives.fsp import FSP
from n2n.distill.objectives.hint import HINT
from n2n.distill.objectives.kd import KD
from n2n.distill.objectives.logit_mse import LOGIT_MSE
from n2n.distill.objectives.logit_std import LOGIT_STD
from n2n.distill.objectives.nd import ND
from n2n.distill.objectives.noisy_teacher import NOISY_TEACHER
from n2n.distill.objectives.nst import NST
from n2n.distill.objectives.ofa import OFA
from n2n.distill.objectives.pkt import PKT
from n2n.distill.objectives.rkd import RKD
from n2n.distill.objectives.similarity import SIMILARITY
from n2n.distill.objectives.soft_targets import SOFT_TARGETS
from n2n.distill.objectives.vid import VID
from n2n.distill.objectives.wttm import WTTM

_ALL = (
    KD,
    LOGIT_MSE,
    CE,
    NST,
    SOFT_TARGETS,
    DKD,
    LOGIT_STD,
    DIST,
    WTTM,
    OFA,
    NOISY_TEACHER,
    HINT,
    ATTENTION,
    VID,
    ACTIVATION_BOUNDARY,
    FACTOR,
    ND,
    SIMILARITY,
    RKD,
    CORRELATION,
    PKT,
    FSP,
    CRD,
    DISWOT_SEMANTIC,
    DISWOT_RELATION,
)
OBJECTIVES: dict[str, Objective] = {one.name: one for one in _ALL}
"""Every objective by name; one of your own is added under its name."""

WEIGHTS: dict[str, float] = {
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
