"""Training-free scores: what can be told of a network before any training step."""

from n2n.scores.aggregate import aggregate
from n2n.scores.az_nas import az_complexity, az_expressivity, az_progressivity, az_trainability
from n2n.scores.base import Probe, Score, ScoreError
from n2n.scores.diswot import diswot, diswot_free, diswot_relation, diswot_semantic
from n2n.scores.fisher import fisher
from n2n.scores.grad_norm import grad_norm
from n2n.scores.grasp import grasp
from n2n.scores.jacov import jacov
from n2n.scores.live_capacity import live_capacity
from n2n.scores.macs import macs
from n2n.scores.naswot import naswot
from n2n.scores.params import params
from n2n.scores.paths import live_params, path_length
from n2n.scores.snip import snip
from n2n.scores.swap import swap
from n2n.scores.synflow import synflow
from n2n.scores.taught_capacity import taught_capacity
from n2n.scores.zen import zen
from n2n.scores.zico import zico

SCORES: dict[str, Score] = {
    "params": params,
    "macs": macs,
    "naswot": naswot,
    "synflow": synflow,
    "diswot": diswot,
    "diswot_semantic": diswot_semantic,
    "diswot_relation": diswot_relation,
    "diswot_free": diswot_free,
    "snip": snip,
    "grasp": grasp,
    "grad_norm": grad_norm,
    "fisher": fisher,
    "jacov": jacov,
    "zen": zen,
    "zico": zico,
    "swap": swap,
    "az_expressivity": az_expressivity,
    "az_progressivity": az_progressivity,
    "az_trainability": az_trainability,
    "az_complexity": az_complexity,
    "live_capacity": live_capacity,
    "live_params": live_params,
    "path_length": path_length,
    "taught_capacity": taught_capacity,
}
"""Every score by its name; a new one is a file, a line here, and then under the contract test."""

AGGREGATES: dict[str, tuple[str, ...]] = {
    "az_nas": ("az_expressivity", "az_progressivity", "az_trainability", "az_complexity"),
}
"""Scores of a whole population: the log-rank sum (`aggregate`) of the scores that they are put together from."""

NEEDS_TEACHER = frozenset({"diswot", "diswot_semantic", "diswot_relation", "diswot_free"})
"""The scores that compare with a teacher: without one in the probe they raise a ScoreError."""
SOLVES = frozenset({"taught_capacity"})
"""The scores that look at what a student has inherited, once the probe has solved it; others see fresh weights."""

__all__ = ["AGGREGATES", "NEEDS_TEACHER", "SCORES", "SOLVES", "Probe", "Score", "ScoreError", "aggregate"]
