"""Judging students: one batch-first callable, and its interchangeable forms."""

from n2n.evaluate.base import Evaluate, Evaluation, Status, evaluation_seed
from n2n.evaluate.cached import cached
from n2n.evaluate.distillation import distillation
from n2n.evaluate.fake import fake
from n2n.evaluate.ladder import ladder
from n2n.evaluate.memory import Memory, remembered
from n2n.evaluate.ray_pool import ray_pool
from n2n.evaluate.scoring import scoring

__all__ = [
    "Evaluate",
    "Evaluation",
    "Memory",
    "Status",
    "cached",
    "distillation",
    "evaluation_seed",
    "fake",
    "ladder",
    "ray_pool",
    "remembered",
    "scoring",
]
