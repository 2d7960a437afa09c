"""NAS-Bench-201: one cell of four nodes, six edges and five operations, 15,625 networks.

Dong, Yang: "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search", ICLR 2020 (arXiv
2001.00326). A stem of width 16; three stages of five cells, of widths 16, 32 and 64; a residual block that halves the
size between stages; batch norm, ReLU, global average pooling and a linear classifier. A node is the sum of what its
edges make of earlier nodes.

The code is six digits for the edges 1<-0, 2<-0, 2<-1, 3<-0, 3<-1, 3<-2: 0 none, 1 skip, 2 conv1x1, 3 conv3x3, 4
avgpool3x3. The actions are ordered by what the operations cost: none, skip, avgpool3x3, conv1x1, conv3x3, so that the
lowest student is the empty cell and the last one, which stands for the teacher, has six 3x3 convolutions.

**MACs are the published ones**: on CIFAR-10 `7.943872 + 4.36224 n_1x1 + 35.81952 n_3x3 + 1.29024 n_pool` M. Besides
convolutions and classifier (`7.783040 + 3.93216 n_1x1 + 35.38944 n_3x3` M, which is what `n2n.networks.macs` counts)
they have two for each element that a batch norm gives, one for each that a ReLU gives, and the window for each that a
pooling gives.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import final

import torch
from torch import Tensor, nn

from search_spaces.base import Cost
from search_spaces.family import Choices, Decision, Images, Unit, conv_norm, linear, norm, total, weights
from search_spaces.published import PublishedSpace

NONE, SKIP, CONV1, CONV3, POOL = range(5)
OPERATIONS = {NONE: "none", SKIP: "skip", POOL: "avgpool3x3", CONV1: "conv1x1", CONV3: "conv3x3"}
"""By digit, in the order of the actions."""
EDGES = ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))
"""Where an edge goes to and where it comes from, in the order of the digits."""
CELLS = 5
WIDTHS = (16, 32, 64)


class Zero(nn.Module):
    """Nothing comes through: [B, C, H, W] to zeros [B, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W]."""
        return torch.zeros_like(x)


class Convolution(nn.Sequential):
    """ReLU, convolution without bias, batch norm: [B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
        )


def operation(digit: int, width: int) -> nn.Module:
    """The module of an edge: [B, width, H, W] to [B, width, H, W]."""
    if digit in (CONV1, CONV3):
        return Convolution(width, width, 1 if digit == CONV1 else 3)
    if digit == POOL:
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return nn.Identity() if digit == SKIP else Zero()


class Cell(nn.Module):
    """Four nodes; the first is the input [B, width, H, W], the last the output of the same shape."""

    def __init__(self, digits: Choices, width: int) -> None:
        super().__init__()
        self.edges = nn.ModuleList(operation(digit, width) for digit in digits)

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, H, W] to [B, width, H, W]."""
        nodes = {0: x}
        for (target, source), edge in zip(EDGES, self.edges, strict=True):
            given = edge(nodes[source])
            nodes[target] = nodes[target] + given if target in nodes else given
        return nodes[EDGES[-1][0]]


class Reduction(nn.Module):
    """The block between stages: [B, inputs, H, W] to [B, outputs, H / 2, W / 2]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv_a = Convolution(inputs, outputs, 3, stride=2)
        self.conv_b = Convolution(outputs, outputs, 3)
        self.downsample = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H / 2, W / 2]."""
        summed: Tensor = self.downsample(x) + self.conv_b(self.conv_a(x))
        return summed


class CellNetwork(nn.Module):
    """The network of a cell: images [B, C, H, W], sides multiples of 4, to logits [B, K]."""

    def __init__(self, digits: Choices, *, classes: int, channels: int) -> None:
        super().__init__()
        width = WIDTHS[0]
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        cells: list[nn.Module] = []
        for outputs in WIDTHS:
            if outputs != width:
                cells.append(Reduction(width, outputs))
            cells += [Cell(digits, outputs) for _ in range(CELLS)]
            width = outputs
        self.cells = nn.Sequential(*cells)
        self.lastact = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(width, classes)

    @property
    def primary_blocks(self) -> tuple[nn.Module, ...]:
        """The cells and what is between them, which scores that go block by block look at (AZ-NAS, section 3)."""
        return tuple(self.cells)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] to logits [B, K]."""
        out = self.lastact(self.cells(self.stem(x)))  # [B, 64, H / 4, W / 4]
        logits: Tensor = self.classifier(self.flatten(self.pool(out)))
        return logits


@cache
def _edge(cell: int, edge: int, digit: int, width: int, size: int) -> Unit | None:
    """The unit of an edge; None where it lets nothing through."""
    if digit == NONE:
        return None
    elements = width * size**2
    kernel = {SKIP: 0, POOL: 3, CONV1: 1, CONV3: 3}[digit]
    if digit in (CONV1, CONV3):
        kind, cost = "conv", total(conv_norm(width, width, kernel, size), weights(0, 3 * elements))
    else:
        kind, cost = ("pool" if digit == POOL else "other"), weights(0, kernel**2 * elements)
    return Unit(
        f"cells.{cell}.edges.{edge}", kind, width, width, cost, spatial=size, kernel=kernel,
        stride=1 if kernel else 0, padding=kernel // 2, decisions=(edge,), removable=True,
    )  # fmt: skip


def _reduction(cell: int, inputs: int, outputs: int, size: int) -> Unit:
    """The unit of the block between stages, whose output is `size` x `size`."""
    before, after = inputs * (2 * size) ** 2, outputs * size**2  # elements that come in and go out
    shortcut = inputs * outputs
    cost = total(
        conv_norm(inputs, outputs, 3, size),
        conv_norm(outputs, outputs, 3, size),
        weights(shortcut, shortcut * size**2),
        # The two ReLUs, the two norms, and the pooling of 2x2, whose windows do not overlap.
        weights(0, (before + after) + 2 * (after + after) + before),
    )
    return Unit(
        f"cells.{cell}", "conv", inputs, outputs, cost, spatial=size, kernel=3, stride=2, padding=1, residual=True,
        reason="is the block between stages, which no edge speaks of",
    )  # fmt: skip


@final
@dataclass(frozen=True)
class NasBench201:
    """The family: a decision for each edge, the same in all cells."""

    images: Images
    name = "nas_bench_201"
    form = (
        "six digits for the edges 1<-0, 2<-0, 2<-1, 3<-0, 3<-1, 3<-2, each 0 none, 1 skip, 2 conv1x1, 3 conv3x3 or "
        "4 avgpool3x3, as in 421211"
    )
    students = len(OPERATIONS) ** len(EDGES)

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """The operation of each edge."""
        choices, labels = tuple(OPERATIONS), tuple(f"{digit} {name}" for digit, name in OPERATIONS.items())
        return tuple(Decision(f"edge {target}<-{source}", choices, labels) for target, source in EDGES)

    def matters(self, choices: Choices) -> bool:
        """Every decision does: networks are told apart by their code, as in the tables."""
        return True

    def units(self, choices: Choices) -> tuple[Unit, ...]:
        """Stem, the edges of each cell, the blocks between stages, the last norm, the classifier."""
        size, width, cell = self.images.image_size, WIDTHS[0], 0
        units: list[Unit] = [self._stem(width, size)]
        for outputs in WIDTHS:
            if outputs != width:
                size //= 2
                units.append(_reduction(cell, width, outputs, size))
                width, cell = outputs, cell + 1
            for at in range(cell, cell + CELLS):
                edges = (_edge(at, edge, digit, width, size) for edge, digit in enumerate(choices))
                units += [unit for unit in edges if unit is not None]
            cell += CELLS
        return (*units, *self._head(width, size))

    def _stem(self, width: int, size: int) -> Unit:
        cost = total(conv_norm(self.images.channels, width, 3, size), weights(0, 2 * width * size**2))
        reason = "is the stem, of a fixed width"
        return Unit("stem", "conv", self.images.channels, width, cost, spatial=size, kernel=3, stride=1, padding=1,
                    reason=reason)  # fmt: skip

    def _head(self, width: int, size: int) -> tuple[Unit, Unit]:
        """Norm, ReLU and pooling; the classifier."""
        # 81 per channel at 8x8 is what the published 7.943872 M leave for the global pooling: the window, one wider.
        last: Cost = total(norm(width), weights(0, 3 * width * size**2 + width * (size + 1) ** 2))
        classifier = linear(width, self.images.classes)
        return (
            Unit("lastact", "batch_norm", width, width, last, spatial=size, reason="no edge speaks of it"),
            Unit("classifier", "linear", width, self.images.classes, classifier, reason="it gives the classes"),
        )

    def network(self, choices: Choices) -> nn.Module:
        """A `CellNetwork`."""
        return CellNetwork(choices, classes=self.images.classes, channels=self.images.channels)

    def code(self, choices: Choices) -> str:
        """`421211`."""
        return "".join(str(digit) for digit in choices)

    def parse(self, code: str) -> Choices | None:
        """Six digits."""
        return tuple(int(digit) for digit in code) if re.fullmatch(r"[0-9]{6}", code) else None


def nas_bench_201(*, classes: int = 10, channels: int = 3, image_size: int = 32) -> PublishedSpace:
    """Opens NAS-Bench-201: 15,625 cells, 73,306 to 1,531,546 parameters at 10 classes.

    Args:
        classes: K.
        channels: of the images.
        image_size: height and width that MACs are counted for, a multiple of 4; the networks take others, too.

    Raises:
        SpaceError: an argument is out of its range.
    """
    return PublishedSpace(NasBench201(Images(classes, channels, image_size).checked("nas_bench_201", multiple=4)))
