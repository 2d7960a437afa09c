"""SynFlow: how much signal the weights' absolute values carry from input to output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from n2n.scores.base import Probe, ScoreError, borrowed, finite


def synflow(network: nn.Module, probe: Probe) -> float:
    """The synaptic flow of all weights, summed.

        s = sum_w |w| dR/d|w|,   R = sum of the outputs of the network with |weights| for one input of ones

    H. Tanaka, D. Kunin, D. L. K. Yamins, S. Ganguli, *Pruning neural networks without any data by iteratively
    conserving synaptic flow*, NeurIPS 2020; summed over the network as in M. S. Abdelfattah et al., *Zero-Cost Proxies
    for Lightweight NAS*, ICLR 2021. As in that benchmark, batch norm is left out (its modules pass on what they are
    given), biases take part with their absolute values but are not summed, and all is computed in float64. Weights are
    the parameters of two axes and more. Of the probe only the images' shape matters. In a chain of L layers without
    biases the score is L R.

    Raises:
        ScoreError: there are no weights, or the flow is not finite (very deep, wide networks leave float64 behind).
        RuntimeError: the network does not run on the input of ones, e.g. because it insists on float32.
    """
    ones = torch.ones_like(probe.images[:1], dtype=torch.float64)  # [1, C, H, W]
    with borrowed(network, probe.seed), torch.enable_grad():
        network.double()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.abs_()
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.register_forward_hook(_pass_on)
        weights = [parameter for parameter in network.parameters() if parameter.ndim >= 2]
        if not weights:
            raise ScoreError("synflow: expected weights (parameters of two axes or more), found none")
        for weight in weights:
            weight.requires_grad_()
        value = _flow(network(ones).sum(), weights)
    return finite(value, "synflow", "the weights are not finite, or their product leaves float64: take another score")


def _flow(total: Tensor, weights: Sequence[Tensor]) -> float:
    """The sum of |w dR/dw| over weights; one that the outputs do not depend on adds nothing."""
    if not total.requires_grad:
        return 0.0
    gradients = torch.autograd.grad(total, weights, allow_unused=True)
    flows = [(w.detach() * g).abs().sum() for w, g in zip(weights, gradients, strict=True) if g is not None]
    return float(torch.stack(flows).sum())


def _pass_on(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
    """A forward hook that gives the module's input for its output."""
    return inputs[0]
