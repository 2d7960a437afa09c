"""The length of the loss's gradient, layer by layer."""

from __future__ import annotations

from torch import nn

from n2n.scores.base import Probe, finite
from n2n.scores.loss import loss_gradients, total


def grad_norm(network: nn.Module, probe: Probe) -> float:
    """The Euclidean norms of the weights' gradients, summed over the layers.

        s = sum_l ||dL/dW_l||_2,   L = the mean cross-entropy of the batch

    M. S. Abdelfattah, A. Mehrotra, L. Dudziak, N. D. Lane, *Zero-Cost Proxies for Lightweight NAS*, ICLR 2021. Weights
    are the parameters of two axes and more; batch norm takes the statistics of the batch. In [0, inf). L is a mean: the
    same images twice have the same score.

    Raises:
        ScoreError: no weights, outputs that are no logits, or a sum that is not finite.
        RuntimeError, ValueError: the network does not run on the probe's images.
    """
    norms = [gradient.double().norm() for _, gradient in loss_gradients(network, probe, "grad_norm")]
    return finite(total(norms), "grad_norm", "look at the network's weights")
