"""The work of a network as its score."""

from __future__ import annotations

from torch import nn

from n2n.networks import count
from n2n.scores.base import Probe


def macs(network: nn.Module, probe: Probe) -> float:
    """Multiply-accumulates for one example of the probe's shape; see `n2n.networks.macs`.

    Raises:
        RuntimeError: the network does not run on the probe's images.
    """
    return float(count.macs(network, probe.images[:1]))
