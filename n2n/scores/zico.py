"""ZiCo: how large the gradients are for how much they differ between batches."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from n2n.scores.base import Probe, ScoreError, finite
from n2n.scores.loss import loss_gradients

_BATCHES = 2


def zico(network: nn.Module, probe: Probe) -> float:
    """The inverse coefficient of variation of the gradients, summed within a layer and multiplied over the layers.

        s = sum_l ln sum_{w in l} E_i |dL_i/dw| / sqrt(Var_i |dL_i/dw|)

    `L_i` is the mean cross-entropy of half i of the probe's images (two batches, as in the release), E and Var are over
    the halves (Var divides by 2). G. Li, Y. Yang, K. Bhardwaj, R. Marculescu, *ZiCo: Zero-shot NAS via Inverse
    Coefficient of Variation on Gradients*, ICLR 2023; the equation of the paper, where the release has the variance of
    the signed gradient. Layers are the weights of two axes and more; a weight whose gradients do not vary is left out,
    and so is a layer of such weights. Of any sign. A larger batch varies less and scores higher.

    Raises:
        ScoreError: fewer than two images, no weights, outputs that are no logits, no gradient that varies, or one that
            is not finite.
        RuntimeError, ValueError: the network does not run on half of the probe's images.
    """
    if len(probe.images) < _BATCHES:
        raise ScoreError(f"zico: expected at least {_BATCHES} images, found {len(probe.images)}; take a larger batch")
    halves = zip(probe.images.tensor_split(_BATCHES), probe.labels.tensor_split(_BATCHES), strict=True)
    runs = [loss_gradients(network, replace(probe, images=images, labels=labels), "zico") for images, labels in halves]
    parts = []
    for layer in zip(*runs, strict=True):
        sizes = torch.stack([gradient.double().abs() for _, gradient in layer])  # [2, *weight]
        if not bool(torch.isfinite(sizes).all()):
            raise ScoreError("zico: expected finite gradients, found others; look at the network's weights")
        spread = sizes.std(dim=0, correction=0)
        vary = spread > 0
        if bool(vary.any()):
            parts.append((sizes.mean(dim=0)[vary] / spread[vary]).sum().log())
    if not parts:
        raise ScoreError("zico: expected gradients that differ between batches, found none; look at the weights")
    return finite(float(torch.stack(parts).sum()), "zico", "look at the network's weights")
