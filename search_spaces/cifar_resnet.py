"""Residual networks for small images, and the space S0 of DisWOT over their depths.

The networks: He, Zhang, Ren, Sun: "Deep Residual Learning for Image Recognition", CVPR 2016 (section 4.2). Where the
width or the size changes, the shortcut is a 1x1 convolution with batch norm (option B of the paper). Every activation
is a module of its own that is called once, so that a layer can be named, seen and removed.

The space: Dong, Li, Wei: "DisWOT: Student Architecture Search for Distillation WithOut Training", CVPR 2023 (arXiv
2303.15678): widths 16-16-32-64 for stem and stages, 1, 3, 5 or 7 blocks in each of three stages, 64 networks. The code
is the depths, `1-3-5`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from torch import Tensor, nn

from search_spaces.family import Choices, Decision, Images, Unit, conv_norm, linear, total
from search_spaces.published import PublishedSpace

DEPTHS = (1, 3, 5, 7)
WIDTHS = (16, 32, 64)


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
    """A 3x3 stem as wide as the first stage, stages of basic blocks, global average pooling and one linear layer.

    Stage i has `blocks[i]` blocks of width `widths[i]`; the size halves from stage to stage.
    """

    def __init__(self, blocks: Sequence[int], *, widths: Sequence[int], classes: int, channels: int) -> None:
        super().__init__()
        inputs = widths[0]
        self.conv1 = nn.Conv2d(channels, inputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU()
        stages: list[nn.Module] = []
        for stage, (count, outputs) in enumerate(zip(blocks, widths, strict=True)):
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
        out = self.relu(self.bn1(self.conv1(x)))  # [B, widths[0], H, W]
        out = self.flatten(self.pool(self.stages(out)))  # [B, widths[-1]]
        logits: Tensor = self.fc(out)
        return logits


def initialise(network: nn.Module) -> None:
    """He initialisation of every convolution, for the signal of the backward pass (fan out)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def resnet_units(
    blocks: Sequence[int],
    widths: Sequence[int],
    images: Images,
    *,
    depth_decisions: Sequence[int],
    width_decisions: Sequence[int] = (),
) -> tuple[Unit, ...]:
    """The units of a `ResNet`: stem, blocks, classifier.

    `depth_decisions` and `width_decisions` are the indices of the decisions about each stage; without the latter the
    widths are fixed. The stem goes with the width of the first stage.
    """
    groups = [f"stage{stage + 1}.width" if width_decisions else "" for stage in range(len(blocks))]
    size, inputs = images.image_size, widths[0]
    stem = conv_norm(images.channels, inputs, 3, size)
    units = [
        Unit(
            "conv1", "conv", images.channels, inputs, stem, spatial=size, kernel=3, stride=1, padding=1,
            decisions=tuple(width_decisions[:1]), group=groups[0], reason="is the stem, of a fixed width",
        )
    ]  # fmt: skip
    for stage, (count, outputs) in enumerate(zip(blocks, widths, strict=True)):
        stride = 1 if stage == 0 else 2
        size //= stride
        deep, wide = (depth_decisions[stage],), tuple(width_decisions[stage : stage + 1])
        for block in range(count):
            first = block == 0
            cost = total(conv_norm(inputs, outputs, 3, size), conv_norm(outputs, outputs, 3, size))
            if first and (stride != 1 or inputs != outputs):
                cost = total(cost, conv_norm(inputs, outputs, 1, size))
            units.append(
                Unit(
                    f"stages.{stage}.{block}", "conv", inputs, outputs, cost,
                    spatial=size, kernel=3, stride=stride if first else 1, padding=1, residual=True,
                    decisions=wide if first else tuple(sorted((*deep, *wide))), removable=not first,
                    group=groups[stage], reads=groups[max(0, stage - 1)] if first else groups[stage],
                    reason="is the first block of its stage, which changes the size",
                )
            )  # fmt: skip
            inputs = outputs
    classifier = linear(inputs, images.classes)
    reason = "it gives the classes"
    return (*units, Unit("fc", "linear", inputs, images.classes, classifier, reads=groups[-1], reason=reason))


@final
@dataclass(frozen=True)
class CifarResNet:
    """The family of S0."""

    images: Images
    name = "cifar_resnet"
    form = "three depths of 1, 3, 5 or 7 blocks, as in 1-3-5"
    students = len(DEPTHS) ** len(WIDTHS)

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """The depth of each stage."""
        return tuple(Decision(f"stage{stage + 1}.depth", DEPTHS) for stage in range(len(WIDTHS)))

    def matters(self, choices: Choices) -> bool:
        """Every decision does."""
        return True

    def units(self, choices: Choices) -> tuple[Unit, ...]:
        """Stem, blocks, classifier."""
        return resnet_units(choices, WIDTHS, self.images, depth_decisions=range(len(WIDTHS)))

    def network(self, choices: Choices) -> nn.Module:
        """A `ResNet` of these depths."""
        return ResNet(choices, widths=WIDTHS, classes=self.images.classes, channels=self.images.channels)

    def code(self, choices: Choices) -> str:
        """`1-3-5`."""
        return "-".join(str(depth) for depth in choices)

    def parse(self, code: str) -> Choices | None:
        """Three numbers."""
        return tuple(int(part) for part in code.split("-")) if re.fullmatch(r"\d+-\d+-\d+", code) else None


def cifar_resnet(*, classes: int = 100, channels: int = 3, image_size: int = 32) -> PublishedSpace:
    """Opens S0: the depths of a CIFAR ResNet, 64 networks, 83,892 to 667,188 parameters at 100 classes.

    Args:
        classes: K.
        channels: of the images.
        image_size: height and width that MACs are counted for; the networks take others, too.

    Raises:
        SpaceError: an argument is out of its range.
    """
    return PublishedSpace(CifarResNet(Images(classes, channels, image_size).checked("cifar_resnet", multiple=4)))
