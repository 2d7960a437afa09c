"""The loss of a borrowed network on a probe and its gradients, as the scores that look at labels take them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from n2n.scores.base import Probe, ScoreError, batch_statistics, borrowed


@contextmanager
def differentiable(network: nn.Module, probe: Probe, name: str) -> Iterator[list[nn.Parameter]]:
    """Lends a network whose weights (parameters of two axes and more) take part in gradients; gives these weights.

    Batch norm takes the statistics of the batch, everything else runs as in evaluation. Nothing is accumulated in
    `.grad`, neither here nor by `torch.autograd.grad`, so that calls cannot see each other.

    Raises:
        ScoreError: there are no weights.
    """
    with borrowed(network, probe.seed, parameters=False), torch.enable_grad():
        batch_statistics(network)
        weights = [parameter for parameter in network.parameters() if parameter.ndim >= 2]
        if not weights:
            raise ScoreError(f"{name}: expected weights (parameters of two axes or more), found none")
        for weight in weights:
            weight.requires_grad_()
        yield weights


def cross_entropy(logits: Tensor, labels: Tensor, name: str, *, reduction: str = "mean") -> Tensor:
    """The cross-entropy of logits [B, K] against labels [B], a scalar.

    Raises:
        ScoreError: the outputs are no such logits.
    """
    if logits.ndim != 2 or len(logits) != len(labels) or int(labels.max()) >= logits.shape[1]:
        raise ScoreError(
            f"{name}: expected logits [{len(labels)}, more than {int(labels.max())}] for labels up to"
            f" {int(labels.max())}, found outputs of shape {list(logits.shape)}; take a network that gives one logit"
            f" for each class"
        )
    return F.cross_entropy(logits, labels, reduction=reduction)


def gradients(loss: Tensor, weights: Sequence[Tensor], *, create_graph: bool = False) -> list[tuple[Tensor, Tensor]]:
    """Each weight with dloss/dweight, of its shape; weights that the loss does not depend on are left out."""
    if not loss.requires_grad:
        return []
    found = torch.autograd.grad(loss, weights, create_graph=create_graph, allow_unused=True)
    return [(weight, gradient) for weight, gradient in zip(weights, found, strict=True) if gradient is not None]


def loss_gradients(network: nn.Module, probe: Probe, name: str) -> list[tuple[Tensor, Tensor]]:
    """The network's weights, each with the gradient of the probe's mean cross-entropy; one pass forth and back.

    Raises:
        ScoreError: there are no weights, or the outputs are no logits.
        RuntimeError, ValueError: the network does not run on the probe's images.
    """
    with differentiable(network, probe, name) as weights:
        found = gradients(cross_entropy(network(probe.images), probe.labels, name), weights)
        return [(weight.detach(), gradient) for weight, gradient in found]


def total(parts: Sequence[Tensor]) -> float:
    """The sum of scalars in float64; 0 of none."""
    return float(torch.stack([part.double() for part in parts]).sum()) if parts else 0.0
