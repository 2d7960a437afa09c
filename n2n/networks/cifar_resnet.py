"""Residual networks for small images: the CIFAR family (6n+2 layers) and ResNet-18/34 with a CIFAR stem.

He, Zhang, Ren, Sun: "Deep Residual Learning for Image Recognition", CVPR 2016 (section 4.2 for the CIFAR family).
Where the width or the size changes, the shortcut is a 1x1 convolution with batch norm (option B of the paper).
Every activation is a module of its own that is called once, so that a layer can be named, seen and removed.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: [B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out = out + self.shortcut(x)
        activated: Tensor = self.relu2(out)
        return activated


class ResNet(nn.Module):
    """A 3x3 stem, one stage of basic blocks per entry of `blocks`, global average pooling and one linear layer.

    The width doubles and the size halves from stage to stage.
    """

    def __init__(self, blocks: Sequence[int], *, classes: int, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        stages: list[nn.Module] = []
        inputs = width
        for stage, count in enumerate(blocks):
            outputs = width * 2**stage
            first = BasicBlock(inputs, outputs, stride=1 if stage == 0 else 2)
            stages.append(nn.Sequential(first, *(BasicBlock(outputs, outputs) for _ in range(count - 1))))
            inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(inputs, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] to logits [B, K]."""
        out = self.relu(self.bn1(self.conv1(x)))  # [B, width, H, W]
        out = self.flatten(self.pool(self.stages(out)))  # [B, width * 2 ** (stages - 1)]
        logits: Tensor = self.fc(out)
        return logits


def initialise(network: nn.Module) -> None:
    """He initialisation of every convolution, for the signal of the backward pass (fan out)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def resnet20(*, classes: int = 10, channels: int = 3, width: int = 16) -> nn.Module:
    """ResNet-20 for small images: 0.27M parameters at width 16."""
    return ResNet((3, 3, 3), classes=classes, channels=channels, width=width)


def resnet32(*, classes: int = 10, channels: int = 3, width: int = 16) -> nn.Module:
    """ResNet-32 for small images: 0.47M parameters at width 16."""
    return ResNet((5, 5, 5), classes=classes, channels=channels, width=width)


def resnet56(*, classes: int = 10, channels: int = 3, width: int = 16) -> nn.Module:
    """ResNet-56 for small images: 0.86M parameters at width 16."""
    return ResNet((9, 9, 9), classes=classes, channels=channels, width=width)


def resnet110(*, classes: int = 10, channels: int = 3, width: int = 16) -> nn.Module:
    """ResNet-110 for small images: 1.73M parameters at width 16."""
    return ResNet((18, 18, 18), classes=classes, channels=channels, width=width)


def resnet18(*, classes: int = 10, channels: int = 3, width: int = 64) -> nn.Module:
    """ResNet-18 with a 3x3 stem of stride 1 and no max pooling: 11.2M parameters at width 64."""
    return ResNet((2, 2, 2, 2), classes=classes, channels=channels, width=width)


def resnet34(*, classes: int = 10, channels: int = 3, width: int = 64) -> nn.Module:
    """ResNet-34 with a 3x3 stem of stride 1 and no max pooling: 21.3M parameters at width 64."""
    return ResNet((3, 4, 6, 3), classes=classes, channels=channels, width=width)
