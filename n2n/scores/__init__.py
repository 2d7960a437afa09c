"""Training-free scores: what can be told of a network before any training step."""

from n2n.scores.base import Probe, Score, ScoreError
from n2n.scores.fisher import fisher
from n2n.scores.grad_norm import grad_norm
from n2n.scores.grasp import grasp
from n2n.scores.jacov import jacov
from n2n.scores.macs import macs
from n2n.scores.naswot import naswot
from n2n.scores.params import params
from n2n.scores.snip import snip
from n2n.scores.swap import swap
from n2n.scores.synflow import synflow
from n2n.scores.zico import zico

SCORES: dict[str, Score] = {
    "params": params,
    "macs": macs,
    "naswot": naswot,
    "synflow": synflow,
    "snip": snip,
    "grasp": grasp,
    "grad_norm": grad_norm,
    "fisher": fisher,
    "jacov": jacov,
    "zico": zico,
    "swap": swap,
}
"""Every score by its name; a new one is a file, a line here, and then under the contract test."""

__all__ = ["SCORES", "Probe", "Score", "ScoreError"]
