"""VGG networks with batch norm for small images: five convolution stages, one linear classifier.

Simonyan, Zisserman: "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015. The three wide
linear layers of the original are replaced by global pooling and one classifier, as usual on CIFAR. Images must be at
least 16x16, because four poolings halve them.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from search_spaces.cifar_resnet import initialise


class VGG(nn.Module):
    """Stages of 3x3 convolutions, as many as `convolutions` says, of widths 1, 2, 4, 8, 8 times `width`."""

    def __init__(self, convolutions: Sequence[int], *, classes: int, channels: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = channels
        for stage, count in enumerate(convolutions):
            outputs = width * min(2**stage, 8)
            if stage > 0:
                layers.append(nn.MaxPool2d(2))
            for _ in range(count):
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
                inputs = outputs
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(inputs, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] to logits [B, K]."""
        out = self.flatten(self.pool(self.features(x)))  # [B, 8 * width]
        logits: Tensor = self.classifier(out)
        return logits


def vgg11_bn(*, classes: int = 10, channels: int = 3, width: int = 64) -> nn.Module:
    """VGG-11 with batch norm: 9.2M parameters at width 64."""
    return VGG((1, 1, 2, 2, 2), classes=classes, channels=channels, width=width)


def vgg13_bn(*, classes: int = 10, channels: int = 3, width: int = 64) -> nn.Module:
    """VGG-13 with batch norm: 9.4M parameters at width 64."""
    return VGG((2, 2, 2, 2, 2), classes=classes, channels=channels, width=width)


def vgg16_bn(*, classes: int = 10, channels: int = 3, width: int = 64) -> nn.Module:
    """VGG-16 with batch norm: 14.7M parameters at width 64."""
    return VGG((2, 2, 3, 3, 3), classes=classes, channels=channels, width=width)


def vgg19_bn(*, classes: int = 10, channels: int = 3, width: int = 64) -> nn.Module:
    """VGG-19 with batch norm: 20.0M parameters at width 64."""
    return VGG((2, 2, 4, 4, 4), classes=classes, channels=channels, width=width)
