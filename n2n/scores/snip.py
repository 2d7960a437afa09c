"""SNIP: how much the loss would feel the loss of each weight."""

from __future__ import annotations

from torch import nn

from n2n.scores.base import Probe, finite
from n2n.scores.loss import loss_gradients, total


def snip(network: nn.Module, probe: Probe) -> float:
    """The connection sensitivity of all weights, summed.

        s = sum_w |w dL/dw|,   L = the mean cross-entropy of the batch

    N. Lee, T. Ajanthan, P. H. S. Torr, *SNIP: Single-shot Network Pruning based on Connection Sensitivity*, ICLR 2019;
    summed over the network as in M. S. Abdelfattah et al., *Zero-Cost Proxies for Lightweight NAS*, ICLR 2021. Weights
    are the parameters of two axes and more; batch norm takes the statistics of the batch. In [0, inf). L is a mean: the
    same images twice have the same score.

    Raises:
        ScoreError: no weights, outputs that are no logits, or a sum that is not finite.
        RuntimeError, ValueError: the network does not run on the probe's images.
    """
    parts = [(weight * gradient).abs().sum() for weight, gradient in loss_gradients(network, probe, "snip")]
    return finite(total(parts), "snip", "look at the network's weights")
