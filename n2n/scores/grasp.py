"""GraSP: what removing each weight would do to the flow of gradients."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from n2n.scores.base import Probe, finite
from n2n.scores.loss import cross_entropy, differentiable, gradients, total


def grasp(network: nn.Module, probe: Probe) -> float:
    """Minus the weights times the Hessian times the gradient.

        s = -sum_w w (H g)_w,   g = dL/dw,   H = d^2 L/dw^2,   L = the mean cross-entropy of the batch

    C. Wang, G. Zhang, R. Grosse, *Picking Winning Tickets Before Training by Preserving Gradient Flow*, ICLR 2020; with
    the sign of M. S. Abdelfattah et al., *Zero-Cost Proxies for Lightweight NAS*, ICLR 2021, and as there without a
    temperature. Weights are the parameters of two axes and more; batch norm takes the statistics of the batch. Of any
    sign. L is a mean: the same images twice have the same score.

    Raises:
        ScoreError: no weights, outputs that are no logits, or a sum that is not finite.
        RuntimeError, ValueError: the network does not run on the probe's images, or has an operation that cannot be
            differentiated twice.
    """
    # The fused attention kernels have no second derivative.
    with differentiable(network, probe, "grasp") as weights, sdpa_kernel(SDPBackend.MATH):
        loss = cross_entropy(network(probe.images), probe.labels, "grasp")
        first = gradients(loss, weights, create_graph=True)
        # H g is the gradient of g's product with itself held fixed.
        products = [(gradient * gradient.detach()).sum() for _, gradient in first]
        second = gradients(torch.stack(products).sum(), weights) if products else []
        parts = [-(weight.detach() * product).sum() for weight, product in second]
    return finite(total(parts), "grasp", "look at the network's weights")
