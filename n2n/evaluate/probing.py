"""The images that training-free scores look at, drawn from the train split."""

from __future__ import annotations

import torch
from torch import nn

from n2n.data.base import TrainingData
from n2n.data.prepare import prepare
from n2n.scores import Probe


def draw_probe(
    training: TrainingData, *, batch: int, seed: int, device: str = "cpu", teacher: nn.Module | None = None
) -> Probe:
    """Prepared train images [B, C, H, W] with their labels [B], drawn by the seed; all where there are fewer.

    Args:
        training: no split but train is seen.
        batch: B.
        seed: of the draw, in [0, 2^63); modulo 2^32 it is the probe's own, too.
        device: where images and labels are put.
        teacher: for scores that compare with one.
    """
    chosen = torch.randperm(len(training.train), generator=torch.Generator().manual_seed(seed))[:batch]
    split = training.train.subset(chosen)
    images = prepare(split.images.to(device), mean=training.mean, std=training.std)
    return Probe(images, split.labels.to(device), teacher, seed % 2**32)
