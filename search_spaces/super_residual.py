"""Super residual blocks in three stages, after ZenNAS, where DisWOT's S1 comes from; sized for small images.

Lin et al.: "Zen-NAS: A Zero-Shot NAS for High-Performance Image Recognition", ICCV 2021 (arXiv 2102.01063). A super
block is a stack of layers of one kind, width and bottleneck width; only its first layer has a stride. As in the
authors' release, a layer of `KxKx` is one residual block of two k x k convolutions around the bottleneck width, and a
layer of `K1KxK1` two residual blocks of 1x1, k x k, 1x1; the first of a super block has a projection as its shortcut.
The projection here has no bias, for a norm follows. Stem, three super blocks of strides 1, 2 and 2, a 1x1 convolution,
global pooling and a linear classifier; 373,248 networks.

The code is kind, width, bottleneck width and layers of each stage, `k3k3.32.16.2-k1k5k1.64.32.1-k3k3.96.32.3`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import final

from torch import Tensor, nn

from search_spaces.base import Cost
from search_spaces.family import Choices, Decision, Images, Unit, conv_norm, linear, total
from search_spaces.published import PublishedSpace

KINDS = ("k1k3k1", "k3k3", "k1k5k1", "k5k5")
"""Kinds of layers, in the order of their parameters at a bottleneck of half the width."""
STEM, HEAD = 16, 128
FULL = (32, 64, 128)
"""The greatest width of each stage."""
STRIDES = (1, 2, 2)
LAYERS = (1, 2, 3)
_STAGE = re.compile(rf"({'|'.join(KINDS)})\.(\d+)\.(\d+)\.(\d+)")


def shapes(kind: str, inputs: int, outputs: int, bottleneck: int, stride: int) -> tuple[tuple[int, int, int, int], ...]:
    """The convolutions of a residual block: inputs, outputs, kernel and stride of each."""
    kernel = int(kind[-1]) if len(kind) == 4 else int(kind[3])
    if len(kind) == 4:
        return ((inputs, bottleneck, kernel, stride), (bottleneck, outputs, kernel, 1))
    return ((inputs, bottleneck, 1, 1), (bottleneck, bottleneck, kernel, stride), (bottleneck, outputs, 1, 1))


def blocks_of(kind: str) -> int:
    """Residual blocks in a layer."""
    return 1 if len(kind) == 4 else 2


class ResidualBlock(nn.Module):
    """Convolutions with norms, a shortcut, ReLU: [B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""

    def __init__(self, kind: str, inputs: int, outputs: int, *, bottleneck: int, stride: int, projection: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for ins, outs, kernel, step in shapes(kind, inputs, outputs, bottleneck, stride):
            layers += [*_conv_norm(ins, outs, kernel, step), nn.ReLU()]
        self.branch = nn.Sequential(*layers[:-1])  # the last activation comes after the sum
        self.shortcut = nn.Sequential(*_conv_norm(inputs, outputs, 1, stride)) if projection else nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""
        activated: Tensor = self.relu(self.branch(x) + self.shortcut(x))
        return activated


def _conv_norm(inputs: int, outputs: int, kernel: int, stride: int) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(outputs)


class SuperResidualNetwork(nn.Module):
    """The network: images [B, C, H, W] to logits [B, K]."""

    def __init__(self, stages: tuple[tuple[str, int, int, int], ...], *, classes: int, channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv_norm(channels, STEM, 3, 1), nn.ReLU())
        inputs = STEM
        built: list[nn.Module] = []
        for (kind, outputs, bottleneck, layers), stride in zip(stages, STRIDES, strict=True):
            parts: list[nn.Module] = []
            for layer in range(layers):
                parts.append(_layer(kind, inputs, outputs, bottleneck, stride if layer == 0 else 1, first=layer == 0))
                inputs = outputs
            built.append(nn.Sequential(*parts))
        self.stages = nn.Sequential(*built)
        self.head = nn.Sequential(*_conv_norm(inputs, HEAD, 1, 1), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(HEAD, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] to logits [B, K]."""
        out = self.head(self.stages(self.stem(x)))  # [B, HEAD, H / 4, W / 4]
        logits: Tensor = self.classifier(self.flatten(self.pool(out)))
        return logits


def _layer(kind: str, inputs: int, outputs: int, bottleneck: int, stride: int, *, first: bool) -> nn.Sequential:
    """One layer of a super block."""
    one = ResidualBlock(kind, inputs, outputs, bottleneck=bottleneck, stride=stride, projection=first)
    more = [
        ResidualBlock(kind, outputs, outputs, bottleneck=bottleneck, stride=1, projection=False)
        for _ in range(1, blocks_of(kind))
    ]
    return nn.Sequential(one, *more)


def _layer_cost(kind: str, inputs: int, outputs: int, bottleneck: int, stride: int, size: int, *, first: bool) -> Cost:
    """The cost of one layer whose output is `size` x `size`."""
    costs = [conv_norm(inputs, outputs, 1, size)] if first else []
    for block in range(blocks_of(kind)):
        side = size * stride if block == 0 else size
        step_of_block = stride if block == 0 else 1
        for ins, outs, kernel, step in shapes(kind, inputs, outputs, bottleneck, step_of_block):
            side //= step
            costs.append(conv_norm(ins, outs, kernel, side))
        inputs = outputs
    return total(*costs)


@final
@dataclass(frozen=True)
class SuperResidual:
    """The family: kind, width, bottleneck width and layers, stage by stage."""

    images: Images
    name = "super_residual"
    form = (
        "kind, width, bottleneck width and layers of three stages, as in "
        "k3k3.32.16.2-k1k5k1.64.32.1-k3k3.96.32.3; kinds: " + ", ".join(KINDS)
    )
    students = (len(KINDS) * 3 * 2 * len(LAYERS)) ** len(FULL)

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """Four for each stage."""
        return tuple(
            decision
            for stage, full in enumerate(FULL, start=1)
            for decision in (
                Decision(f"stage{stage}.kind", tuple(range(len(KINDS))), KINDS),
                Decision(f"stage{stage}.width", (full // 2, full * 3 // 4, full)),
                Decision(f"stage{stage}.bottleneck", (full // 4, full // 2)),
                Decision(f"stage{stage}.layers", LAYERS),
            )
        )

    def matters(self, choices: Choices) -> bool:
        """Every decision does."""
        return True

    def units(self, choices: Choices) -> tuple[Unit, ...]:
        """Stem, the layers of the super blocks, the 1x1 convolution, the classifier."""
        size, inputs = self.images.image_size, STEM
        stem = conv_norm(self.images.channels, STEM, 3, size)
        units = [Unit("stem", "conv", self.images.channels, STEM, stem, spatial=size, kernel=3, stride=1, padding=1,
                      reason="is the stem, of a fixed width")]  # fmt: skip
        for stage, (kind, outputs, bottleneck, layers) in enumerate(_stages(choices)):
            size //= STRIDES[stage]
            for layer in range(layers):
                stride = STRIDES[stage] if layer == 0 else 1
                cost = _layer_cost(kind, inputs, outputs, bottleneck, stride, size, first=layer == 0)
                units.append(_unit(stage, layer, kind, inputs, outputs, cost, stride, size))
                inputs = outputs
        reads = f"stage{len(FULL)}.width"
        head, classifier = conv_norm(inputs, HEAD, 1, size), linear(HEAD, self.images.classes)
        return (
            *units,
            Unit("head", "conv", inputs, HEAD, head, spatial=size, kernel=1, stride=1, reads=reads,
                 reason="its width is fixed"),
            Unit("classifier", "linear", HEAD, self.images.classes, classifier, reason="it gives the classes"),
        )  # fmt: skip

    def network(self, choices: Choices) -> nn.Module:
        """A `SuperResidualNetwork`."""
        return SuperResidualNetwork(_stages(choices), classes=self.images.classes, channels=self.images.channels)

    def code(self, choices: Choices) -> str:
        """`k3k3.32.16.2-...`."""
        return "-".join(".".join(str(one) for one in stage) for stage in _stages(choices))

    def parse(self, code: str) -> Choices | None:
        """A kind and three numbers for each stage."""
        found = [_STAGE.fullmatch(part) for part in code.split("-")]
        if len(found) != len(FULL) or not all(found):
            return None
        parts = [one.groups() for one in found if one is not None]
        return tuple(value for kind, *rest in parts for value in (KINDS.index(kind), *(int(one) for one in rest)))


def _stages(choices: Choices) -> tuple[tuple[str, int, int, int], ...]:
    """Kind, width, bottleneck width and layers of each stage."""
    return tuple(
        (KINDS[choices[at]], choices[at + 1], choices[at + 2], choices[at + 3]) for at in range(0, len(choices), 4)
    )


def _unit(stage: int, layer: int, kind: str, inputs: int, outputs: int, cost: Cost, stride: int, size: int) -> Unit:
    """One layer of a super block; the first is always there, and reads the stage before."""
    about, first = stage * 4, layer == 0
    kernel = max(shape[2] for shape in shapes(kind, inputs, outputs, outputs, stride))
    own = f"stage{stage + 1}.width"
    reads = own if not first else f"stage{stage}.width" if stage else ""
    return Unit(
        f"stages.{stage}.{layer}", "conv", inputs, outputs, cost, spatial=size,
        kernel=kernel, stride=stride, padding=kernel // 2, residual=True,
        decisions=(about, about + 1, about + 2) if first else (about, about + 1, about + 2, about + 3),
        removable=not first, group=f"{own}, stage{stage + 1}.bottleneck", reads=reads,
    )  # fmt: skip


def super_residual(*, classes: int = 10, channels: int = 3, image_size: int = 32) -> PublishedSpace:
    """Opens the space of super residual blocks.

    Args:
        classes: K.
        channels: of the images.
        image_size: height and width that MACs are counted for, a multiple of 4; the networks take others, too.

    Raises:
        SpaceError: an argument is out of its range.
    """
    return PublishedSpace(SuperResidual(Images(classes, channels, image_size).checked("super_residual", multiple=4)))
