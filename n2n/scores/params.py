"""The number of parameters: what every other score must beat."""

from __future__ import annotations

from torch import nn

from n2n.networks.count import parameters
from n2n.scores.base import Probe


def params(network: nn.Module, probe: Probe) -> float:
    """The number of parameters, trained or frozen, a shared one once; see `n2n.networks.parameters`."""
    return float(parameters(network))
