"""Depths and widths of a CIFAR ResNet: S0 with four widths for each stage, 4,096 networks.

The networks and the depths are those of `cifar_resnet`; each stage is as wide as there, or a quarter, half or three
quarters of it, and the stem is as wide as the first stage. The code is depths and widths, `1-3-5/16-32-64`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import final

from torch import nn

from search_spaces.cifar_resnet import DEPTHS, WIDTHS, ResNet, resnet_units
from search_spaces.family import Choices, Decision, Images, Unit
from search_spaces.published import PublishedSpace

QUARTERS = (1, 2, 3, 4)


@final
@dataclass(frozen=True)
class CifarResNetWidth:
    """The family: the depths first, then the widths."""

    images: Images
    name = "cifar_resnet_width"
    form = "three depths and three widths, as in 1-3-5/16-32-64"
    students = (len(DEPTHS) * len(QUARTERS)) ** len(WIDTHS)

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """The depth of each stage, then the width of each."""
        depths = [Decision(f"stage{stage + 1}.depth", DEPTHS) for stage in range(len(WIDTHS))]
        widths = [
            Decision(f"stage{stage + 1}.width", tuple(full * part // 4 for part in QUARTERS))
            for stage, full in enumerate(WIDTHS)
        ]
        return (*depths, *widths)

    def matters(self, choices: Choices) -> bool:
        """Every decision does."""
        return True

    def units(self, choices: Choices) -> tuple[Unit, ...]:
        """Stem, blocks, classifier."""
        return resnet_units(
            choices[:3], choices[3:], self.images, depth_decisions=range(3), width_decisions=range(3, 6)
        )

    def network(self, choices: Choices) -> nn.Module:
        """A `ResNet` of these depths and widths."""
        return ResNet(choices[:3], widths=choices[3:], classes=self.images.classes, channels=self.images.channels)

    def code(self, choices: Choices) -> str:
        """`1-3-5/16-32-64`."""
        return "/".join("-".join(str(one) for one in part) for part in (choices[:3], choices[3:]))

    def parse(self, code: str) -> Choices | None:
        """Six numbers."""
        whole = re.fullmatch(r"\d+-\d+-\d+/\d+-\d+-\d+", code)
        return tuple(int(number) for number in re.findall(r"\d+", code)) if whole else None


def cifar_resnet_width(*, classes: int = 100, channels: int = 3, image_size: int = 32) -> PublishedSpace:
    """Opens the space of depths and widths of a CIFAR ResNet.

    Args:
        classes: K.
        channels: of the images.
        image_size: height and width that MACs are counted for; the networks take others, too.

    Raises:
        SpaceError: an argument is out of its range.
    """
    images = Images(classes, channels, image_size).checked("cifar_resnet_width", multiple=4)
    return PublishedSpace(CifarResNetWidth(images))
