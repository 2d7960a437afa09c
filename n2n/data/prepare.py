"""From stored images to what a network takes, and the statistics that this needs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from n2n.data.base import Data, TrainingData


def prepare(images: Tensor, *, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalised float32 images [B, C, ...]: (x - mean) / std per channel, where uint8 is divided by 255 first."""
    scaled = images.to(torch.float32)
    if images.dtype == torch.uint8:
        scaled = scaled / 255
    shape = (1, -1) + (1,) * (images.ndim - 2)
    centre = torch.tensor(tuple(mean), dtype=torch.float32, device=images.device).reshape(shape)
    scale = torch.tensor(tuple(std), dtype=torch.float32, device=images.device).reshape(shape)
    return (scaled - centre) / scale


def example_inputs(data: Data | TrainingData, batch: int = 1) -> Tensor:
    """The first `batch` prepared train images [batch, C, H, W], to read a network with."""
    return prepare(data.train.images[:batch], mean=_training(data).mean, std=_training(data).std)


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel (axis 1) of images [n, C, ...] in 0..1, exact whatever the thread count.

    A channel that never changes gets the deviation 1, so that it normalises to zeros.
    """
    channels = images.transpose(0, 1).flatten(1)  # [C, n * H * W]
    means, deviations = [], []
    for channel in channels:
        if images.dtype == torch.uint8:
            # A histogram of the 256 values costs no float copy of the images.
            counts = torch.bincount(channel, minlength=256).to(torch.float64)
            values = torch.arange(256, dtype=torch.float64) / 255
            mean = float((counts * values).sum() / counts.sum())
            variance = float((counts * (values - mean) ** 2).sum() / counts.sum())
        else:
            exact = channel.to(torch.float64)
            mean, variance = float(exact.mean()), float(exact.var(correction=0))
        means.append(round(mean, 6))
        deviations.append(round(variance**0.5, 6) or 1.0)
    return tuple(means), tuple(deviations)


def _training(data: Data | TrainingData) -> TrainingData:
    return data.training if isinstance(data, Data) else data
