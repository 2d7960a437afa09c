"""How much of its teacher a linear readout finds in a network's features, without a training step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from n2n.scores.base import Probe, ScoreError, batch_statistics, borrowed, finite
from n2n.scores.before_pooling import classifier_of

STRENGTH = 1e-2
"""Of the ridge, in units of the mean squared length of the features."""


def readout(network: nn.Module, probe: Probe) -> float:
    """The share of the teacher's logits that a ridge regression on the network's features predicts for unseen images.

        s = 1 - sum_i ||y_i - p_i||^2 / sum_i ||y_i||^2,   p_i = the prediction for image i by the fit without it

    y [B, K] are the teacher's logits, centred and each class over its spread; features are what the last layer of the
    network takes, centred. Leave-one-out predictions of a ridge follow from one fit: with H = G (G + a I)^-1 and the
    Gram matrix G [B, B], `y_i - p_i = (y - H y)_i / (1 - H_ii)` (D. M. Allen 1974, PRESS). Both networks run with
    their own weights: a student that has inherited or learned something scores higher, and one of random weights by
    its architecture alone. At most 1. Batch norm takes the statistics of the batch, in the teacher too.

    Raises:
        ScoreError: no teacher, no classifier, outputs of the teacher that are all alike, or no finite value.
        RuntimeError, ValueError: student or teacher does not run on the probe's images.
    """
    if probe.teacher is None:
        raise ScoreError("readout: expected a teacher to compare with, found none; give the probe one: Probe(teacher=)")
    with borrowed(probe.teacher, probe.seed, parameters=False) as teacher, torch.no_grad():
        batch_statistics(teacher)
        targets = teacher(probe.images).flatten(1).double()  # [B, K]
    features = _features(network, probe)
    value = press(features, targets)
    return finite(value, "readout", "look at the weights of student and teacher, and that there are two images or more")


def press(features: Tensor, targets: Tensor) -> float:
    """The share of the targets [B, K] that leave-one-out ridge on features [B, F] predicts; NaN where none vary."""
    targets = targets - targets.mean(dim=0)
    spread = targets.norm(dim=0)  # [K]
    targets = targets[:, spread > 0] / spread[spread > 0]
    gram = features - features.mean(dim=0)
    gram = gram @ gram.T  # [B, B]
    size = float(gram.diagonal().mean())
    if targets.numel() == 0 or not size > 0:
        return float("nan")
    count = len(gram)
    eye = torch.eye(count, dtype=gram.dtype, device=gram.device)
    # The mean is fitted too, which is a direction of its own: features and targets are orthogonal to it.
    hat = torch.linalg.solve(gram + STRENGTH * size * eye, gram) + 1 / count
    left = (targets - hat @ targets) / (1 - hat.diagonal()).unsqueeze(1)
    return 1 - float(left.square().sum() / targets.square().sum())


def _features(network: nn.Module, probe: Probe) -> Tensor:
    """What the classifier takes, [B, F] float64."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        kept[:] = [inputs[0]]

    with borrowed(network, probe.seed, parameters=False), torch.no_grad():
        classifier = classifier_of(network, probe.images[:2], "readout")
        batch_statistics(network)
        classifier.register_forward_pre_hook(keep)
        network(probe.images)
    return kept[0].flatten(1).double()
