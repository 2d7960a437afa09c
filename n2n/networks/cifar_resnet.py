"""Residual networks for small images by name: the CIFAR family (6n+2 layers) and ResNet-18/34 with a CIFAR stem.

He, Zhang, Ren, Sun: "Deep Residual Learning for Image Recognition", CVPR 2016 (section 4.2 for the CIFAR family). The
network itself is `search_spaces.cifar_resnet.ResNet`, of which that space has students.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from search_spaces.cifar_resnet import ResNet


def _resnet(blocks: Sequence[int], *, classes: int, channels: int, width: int) -> ResNet:
    """The width doubles from stage to stage."""
    widths = [width * 2**stage for stage in range(len(blocks))]
    return ResNet(blocks, widths=widths, classes=classes, channels=channels)


def resnet20(*, classes: int = 10, channels: int = 3, width: int = 16) -> nn.Module:
    """ResNet-20 for small images: 0.27M parameters at width 16."""
    return _resnet((3, 3, 3), classes=classes, channels=channels, width=width)


def resnet32(*, classes: int = 10, channels: int = 3, width: int = 16) -> nn.Module:
    """ResNet-32 for small images: 0.47M parameters at width 16."""
    return _resnet((5, 5, 5), classes=classes, channels=channels, width=width)


def resnet56(*, classes: int = 10, channels: int = 3, width: int = 16) -> nn.Module:
    """ResNet-56 for small images: 0.86M parameters at width 16."""
    return _resnet((9, 9, 9), classes=classes, channels=channels, width=width)


def resnet110(*, classes: int = 10, channels: int = 3, width: int = 16) -> nn.Module:
    """ResNet-110 for small images: 1.73M parameters at width 16."""
    return _resnet((18, 18, 18), classes=classes, channels=channels, width=width)


def resnet18(*, classes: int = 10, channels: int = 3, width: int = 64) -> nn.Module:
    """ResNet-18 with a 3x3 stem of stride 1 and no max pooling: 11.2M parameters at width 64."""
    return _resnet((2, 2, 2, 2), classes=classes, channels=channels, width=width)


def resnet34(*, classes: int = 10, channels: int = 3, width: int = 64) -> nn.Module:
    """ResNet-34 with a 3x3 stem of stride 1 and no max pooling: 21.3M parameters at width 64."""
    return _resnet((3, 4, 6, 3), classes=classes, channels=channels, width=width)
