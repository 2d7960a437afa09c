"""A multi-layer perceptron: the smallest teacher."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def mlp(*, inputs: int = 64, hidden: Sequence[int] = (128, 128), classes: int = 10, channels: int = 1) -> nn.Module:
    """A perceptron on flattened examples: [B, ...] with `inputs` values each to logits [B, K].

    `inputs` counts all the values of an example; `channels` says how many channels share them and changes nothing.

    Raises:
        ValueError: `inputs` is not a multiple of `channels`.
    """
    if inputs % channels:
        raise ValueError(
            f"mlp: inputs={inputs} must count all values of an example and so be a multiple of channels={channels}; "
            "pass inputs=channels * height * width"
        )
    layers: list[nn.Module] = [nn.Flatten()]
    width = inputs
    for size in hidden:
        layers += [nn.Linear(width, size), nn.ReLU()]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, classes))
