"""Fisher: how much the loss would feel the loss of each channel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from n2n.scores.base import Probe, ScoreError, finite
from n2n.scores.loss import cross_entropy, differentiable, gradients, total


def fisher(network: nn.Module, probe: Probe) -> float:
    """The Fisher information of every channel that a convolution or a linear layer gives, summed.

        s = sum_c 1/(2B) sum_n (sum_p a_ncp g_ncp)^2,   g = dL/da,   L = the summed cross-entropy of the batch

    `a_ncp` is what the layer gives for image n in channel c at place p. L. Theis, I. Korshunova, A. Tejani, F. Huszar,
    *Faster gaze prediction with dense networks and Fisher pruning*, 2018; as a score J. Turner et al., *BlockSwap:
    Fisher-guided Block Substitution for Network Compression on a Budget*, ICLR 2020. Batch norm takes the statistics of
    the batch. In [0, inf). A mean over images: the same images twice have the same score (the release of M. S.
    Abdelfattah et al. 2021 has L as a mean, which is 1/B^2 of this).

    Raises:
        ScoreError: no such layers, outputs that are no logits, or a sum that is not finite.
        RuntimeError, ValueError: the network does not run on the probe's images.
    """
    count = len(probe.images)
    kept: list[tuple[Tensor, int]] = []  # what a layer gave, and the axis of its channels

    def keep(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        if output.ndim < 2 or len(output) % count:
            raise ScoreError(
                f"fisher: expected the {count} images along the first axis of what every layer gives, found"
                f" {list(output.shape)} from a {type(module).__name__}; take another score"
            )
        kept.append((output, 1 if isinstance(module, _ConvNd) else -1))
        return output.clone()  # what follows may work in place

    with differentiable(network, probe, "fisher"):
        for module in network.modules():
            if isinstance(module, nn.Linear | _ConvNd):
                module.register_forward_hook(keep)
        loss = cross_entropy(network(probe.images), probe.labels, "fisher", reduction="sum")
        if not kept:
            raise ScoreError("fisher: expected convolutions or linear layers, found none that ran; take another score")
        slopes = gradients(loss, [output for output, _ in kept])
    axes = {id(output): axis for output, axis in kept}
    parts = [_information(output.detach(), slope, axes[id(output)], count) for output, slope in slopes]
    return finite(total(parts), "fisher", "look at the network's weights")


def _information(output: Tensor, slope: Tensor, axis: int, count: int) -> Tensor:
    """1/(2B) sum_c sum_n (sum_p a g)^2 of one layer, a scalar; windows of one image count as its places."""
    product = (output.double() * slope.double()).movedim(axis, -1)  # [B or B * windows, ..., C]
    felt = product.reshape(count, -1, product.shape[-1]).sum(dim=1)  # [B, C]
    return torch.sum(felt**2) / (2 * count)
