"""Zen: how strongly a network with random weights answers to a small change of noise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from n2n.scores.base import Probe, batch_statistics, borrowed, finite
from n2n.scores.before_pooling import before_pooling
from n2n.scores.fresh import draw_weights

_ALPHA = 0.01


def zen(network: nn.Module, probe: Probe) -> float:
    """The Zen-score, a Gaussian complexity that batch norm does not level.

        s = ln E ||f(x) - f(x + a e)||_F + sum_m ln sqrt(mean_c var_mc),   a = 0.01,   x, e, weights from N(0, 1)

    f are the features before global pooling, E the mean over the batch, and `var_mc` the variance by which batch norm m
    divides its channel c while x runs. M. Lin et al., *Zen-NAS: A Zero-Shot NAS for High-Performance Image
    Recognition*, ICCV 2021. As in the release the noise runs with the statistics of its own batch; skip connections
    stay, which the paper takes out of its own space. Of the probe only the images' shape matters. Of any sign. The
    batch is an average: its size changes the noise of the score alone.

    Raises:
        ScoreError: the network does not answer, or not finitely; or it has neither feature maps nor a classifier.
        RuntimeError, ValueError: the network does not run on images of the probe's shape.
    """
    shape, device = probe.images.shape, probe.images.device
    variances: dict[int, Tensor] = {}

    def keep(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        given: Tensor = inputs[0]  # [B, C, *spatial]
        variances[len(variances)] = given.double().transpose(0, 1).flatten(1).var(dim=1, correction=0).mean()

    with borrowed(network, probe.seed), torch.no_grad():
        draw_weights(network)
        noise = torch.randn(shape, device=device)
        moved = noise + _ALPHA * torch.randn(shape, device=device)
        with before_pooling(network, probe.images[:2], "zen") as features:
            batch_statistics(network)
            handles = [
                module.register_forward_pre_hook(keep) for module in network.modules() if isinstance(module, _BatchNorm)
            ]
            network(noise.clone())
            first = features()
            for handle in handles:
                handle.remove()
            network(moved)
            answer = (features() - first).double().norm(dim=1).mean()
    scales = [0.5 * variance.log() for variance in variances.values()]
    value = answer.log() + sum(scales)
    return finite(
        float(value), "zen", "weights from N(0, 1) leave nothing or too much of the noise: take another score"
    )
