"""Random small networks of pieces that the spaces understand, and of some that they do not, for property tests."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

CHANNELS = (4, 6, 8, 12)


class Residual(nn.Module):
    """A residual block: plain, pre-activation or inverted, with a projection where the width changes."""

    def __init__(self, style: str, wide_in: int, wide_out: int, stride: int, *, in_place: bool) -> None:
        super().__init__()
        self.style, self.in_place = style, in_place
        middle = 2 * wide_in if style == "inverted" else wide_out
        groups = middle if style == "inverted" else 1
        self.norm0 = nn.BatchNorm2d(wide_in)
        self.conv1 = nn.Conv2d(wide_in, middle, 1 if style == "inverted" else 3, padding=0 if groups > 1 else 1)
        self.norm1 = nn.BatchNorm2d(middle)
        self.act = nn.ReLU(inplace=in_place)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, 1, groups=groups, bias=False)
        self.norm2 = nn.BatchNorm2d(middle)
        self.last = nn.Conv2d(middle, wide_out, 1) if style == "inverted" else nn.Identity()
        changes = stride != 1 or wide_in != wide_out
        self.shortcut = nn.Conv2d(wide_in, wide_out, 1, stride, bias=False) if changes else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm0(x), inplace=self.in_place) if self.style == "preact" else self.norm0(x)
        y = self.norm2(self.conv2(self.act(self.norm1(self.conv1(y)))))
        y = self.last(y)
        if self.in_place:
            y += self.shortcut(x)
        else:
            y = y + self.shortcut(x)
        return y if self.style == "preact" else F.relu(y)


class Dense(nn.Module):
    """Concatenation, whose channels are not followed."""

    def __init__(self, width: int, added: int) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(width, added, 3, padding=1), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.act(self.conv(x))], dim=1)


class Twice(nn.Module):
    """One conv and one activation called twice, and a gate from half of the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(width, width, 3, padding=1), nn.ReLU()
        self.last = nn.Conv2d(width // 2, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.act(self.conv(self.act(self.conv(x)))).chunk(2, dim=1)
        return self.last(left * torch.sigmoid(right))


class Head(nn.Module):
    """Pooling or flattening, then a small residual MLP and the classifier."""

    def __init__(self, channels: int, size: int, *, pooled: bool, hidden: int, classes: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1) if pooled else nn.Identity()
        self.hidden = nn.Linear(channels * (1 if pooled else size * size), hidden)
        self.norm = nn.LayerNorm(hidden)
        self.drop = nn.Dropout(0.1)
        self.mixer = nn.Linear(hidden, hidden)
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop(self.norm(self.hidden(torch.flatten(self.pool(x), 1))))
        return self.classifier(x + torch.tanh(self.mixer(x)))


def random_network(seed: int, *, size: int = 8, classes: int = 5) -> tuple[nn.Module, torch.Tensor]:
    """A random trained-looking network (running statistics are not the defaults) and a batch [2, 3, size, size]."""
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        width = int(rng.choice(CHANNELS))
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        for _ in range(int(rng.integers(1, 4))):
            piece, width, size = _piece(rng, width, size)
            layers.append(piece)
        pooled = bool(rng.integers(2))
        layers.append(Head(width, size, pooled=pooled, hidden=int(rng.choice((6, 10))), classes=classes))
        network = nn.Sequential(*layers)
        batch = torch.randn(2, 3, 8, 8)
        network.train()
        with torch.no_grad():
            for _ in range(3):
                network(torch.randn(8, 3, 8, 8))
    return network.eval(), batch


def _piece(rng: np.random.Generator, width: int, size: int) -> tuple[nn.Module, int, int]:
    wide_out = int(rng.choice(CHANNELS))
    kind = str(rng.choice(["plain", "preact", "inverted", "conv", "grouped", "pool", "prelu", "dense", "twice"]))
    if kind in {"plain", "preact", "inverted"}:
        stride = int(rng.choice((1, 2))) if size >= 4 else 1
        block = Residual(kind, width, wide_out, stride, in_place=bool(rng.integers(2)))
        return block, wide_out, -(-size // stride)
    if kind == "dense":
        return Dense(width, wide_out), width + wide_out, size
    if kind == "twice" and width % 2 == 0:
        return Twice(width), width, size
    if kind == "conv":
        return nn.Sequential(nn.Conv2d(width, wide_out, 3, padding=1), nn.SiLU()), wide_out, size
    if kind == "grouped":
        grouped = nn.Conv2d(width, 2 * width, 3, padding=1, groups=2)
        return nn.Sequential(grouped, nn.GroupNorm(2, 2 * width), nn.ReLU6(inplace=True)), 2 * width, size
    if kind == "pool" and size >= 4:
        return nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(width, wide_out, 1)), wide_out, size // 2
    return nn.Sequential(nn.Conv2d(width, wide_out, 3, padding=1), nn.PReLU(wide_out)), wide_out, size
