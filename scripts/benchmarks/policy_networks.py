"""Small networks of four families, to train policies on and to try them on: residual, plain, depthwise and dense ones.

They are meant for small images with one channel (the digits of scikit-learn are 8 x 8); each has some ten to hundred
thousand parameters. Residual networks are the project's own; the others are written here after their papers' idea
(Simonyan and Zisserman 2015; Sandler et al. 2018, MobileNetV2; Huang et al. 2017, DenseNet).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from search_spaces.cifar_resnet import ResNet


def residual(*blocks: int, width: int) -> nn.Module:
    """A CIFAR ResNet with so many blocks in each stage; the width doubles from stage to stage."""
    return ResNet(blocks, widths=[width * 2**stage for stage in range(len(blocks))], classes=10, channels=1)


def conv(wide_in: int, wide_out: int, kernel: int = 3, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    layer = nn.Conv2d(wide_in, wide_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(wide_out), nn.ReLU())


def plain(*widths: Sequence[int]) -> nn.Module:
    """Stages of plain convolutions, a max pool between two of them, and a classifier."""
    layers: list[nn.Module] = []
    before = 1
    for index, stage in enumerate(widths):
        layers += [nn.MaxPool2d(2)] if index else []
        for width in stage:
            layers.append(conv(before, width))
            before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


class Inverted(nn.Module):
    """An inverted residual: wider by a factor, depthwise, narrow again; added to its input where shapes agree."""

    def __init__(self, wide_in: int, wide_out: int, *, factor: int, stride: int) -> None:
        super().__init__()
        wide = factor * wide_in
        self.expand = conv(wide_in, wide, 1)
        self.depthwise = conv(wide, wide, stride=stride, groups=wide)
        self.project = nn.Sequential(nn.Conv2d(wide, wide_out, 1, bias=False), nn.BatchNorm2d(wide_out))
        self.shortcut = stride == 1 and wide_in == wide_out

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C', H', W']."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.shortcut else y


def mobile(*stages: tuple[int, int], stem: int = 16, factor: int = 3) -> nn.Module:
    """Stages of (width, blocks) inverted residuals, each but the first halving the image."""
    layers: list[nn.Module] = [conv(1, stem)]
    before = stem
    for index, (width, blocks) in enumerate(stages):
        for block in range(blocks):
            stride = 2 if index and not block else 1
            layers.append(Inverted(before, width, factor=factor, stride=stride))
            before = width
    layers.append(conv(before, 4 * before, 1))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * before, 10))


class Grow(nn.Module):
    """Adds `growth` channels to those that come in."""

    def __init__(self, wide_in: int, growth: int) -> None:
        super().__init__()
        self.new = conv(wide_in, growth)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C + growth, H, W]."""
        return torch.cat([x, self.new(x)], 1)


def dense(*blocks: int, growth: int, stem: int = 16) -> nn.Module:
    """Dense blocks of so many layers, with a halving 1 x 1 convolution and a pool between two of them."""
    layers: list[nn.Module] = [conv(1, stem)]
    width = stem
    for index, many in enumerate(blocks):
        if index:
            layers += [conv(width, width // 2, 1), nn.AvgPool2d(2)]
            width //= 2
        for _ in range(many):
            layers.append(Grow(width, growth))
            width += growth
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet-6": lambda: residual(1, 1, width=24),
    "resnet-8": lambda: residual(1, 1, 1, width=16),
    "resnet-8-narrow": lambda: residual(1, 1, 1, width=12),
    "resnet-10": lambda: residual(1, 2, 1, width=12),
    "resnet-12": lambda: residual(2, 2, 1, width=12),
    "resnet-12-late": lambda: residual(1, 1, 3, width=8),
    "resnet-14": lambda: residual(2, 2, 2, width=8),
    "resnet-16": lambda: residual(3, 2, 2, width=8),
    "resnet-20": lambda: residual(3, 3, 3, width=8),
    "resnet-2-stages": lambda: residual(2, 3, width=16),
    "resnet-2-stages-deep": lambda: residual(4, 3, width=12),
    "resnet-26": lambda: residual(4, 4, 4, width=8),
    "vgg-4": lambda: plain((24,), (32,), (64,)),
    "vgg-5": lambda: plain((16, 16), (32, 32)),
    "vgg-6": lambda: plain((16, 24), (32, 32), (48,)),
    "vgg-6-wide": lambda: plain((32, 32), (48, 48), (48,)),
    "vgg-7": lambda: plain((16, 16), (32, 32), (64, 64)),
    "vgg-8": lambda: plain((16, 16, 16), (32, 32, 32), (48,)),
    "vgg-9": lambda: plain((24, 24), (48, 48, 48), (64, 64, 64)),
    "mobile-4": lambda: mobile((16, 2), (24, 2)),
    "mobile-5": lambda: mobile((16, 2), (24, 3)),
    "mobile-6": lambda: mobile((12, 2), (20, 2), (28, 2)),
    "mobile-8": lambda: mobile((16, 2), (24, 3), (32, 3)),
    "dense-7": lambda: dense(3, 3, growth=12),
    "dense-9": lambda: dense(4, 4, growth=8),
    "dense-11": lambda: dense(3, 4, 3, growth=8),
    "dense-13": lambda: dense(4, 4, 4, growth=8),
}
"""By name: family and depth."""
HELD_BACK = ("resnet-26", "vgg-9", "mobile-8", "dense-13")
"""Deeper ones of the families of "residual-plain", and two other families."""
SETS: dict[str, tuple[str, ...]] = {
    "all": tuple(NETWORKS),
    "residual-plain": tuple(
        name for name in NETWORKS if name.startswith(("resnet-", "vgg-")) and name not in HELD_BACK
    ),
}
"""What policies are trained on: all for those that the package ships, two families where others are held back."""
