"""Random small networks of all the pieces that the spaces understand, for property tests."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

CHANNELS = (4, 6, 8, 12)
PIECES = (
    "plain", "preact", "inverted", "conv", "grouped", "pool", "prelu", "dense", "twice", "gate", "shuffle", "updown",
    "attention",
)  # fmt: skip


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
    """A concatenation of the input with what is made of it."""

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


class Gate(nn.Module):
    """Squeeze and excitation, by convs or by linear layers."""

    def __init__(self, width: int, *, linear: bool) -> None:
        super().__init__()
        self.linear = linear
        middle = max(2, width // 2)
        layer: type[nn.Linear] | partial[nn.Conv2d] = nn.Linear if linear else partial(nn.Conv2d, kernel_size=1)
        self.squeeze, self.excite = layer(width, middle), layer(middle, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        means = x.mean((2, 3), keepdim=not self.linear)
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(means))))
        return x * (gate[:, :, None, None] if self.linear else gate)


class Shuffle(nn.Module):
    """One half of the channels is worked on, then both are shuffled, as in ShuffleNet v2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before = nn.Conv2d(width, width, 1)
        self.branch = nn.Sequential(
            nn.Conv2d(width // 2, width, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width // 2, 3, padding=1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.before(x).chunk(2, dim=1)
        x = torch.cat([left, self.branch(right)], dim=1)
        batch, channels, height, wide = x.shape
        x = x.view(batch, 2, channels // 2, height, wide).transpose(1, 2)
        return x.reshape(batch, channels, height, wide)


class UpDown(nn.Module):
    """Down by a strided conv, up again by a transposed one, in groups."""

    def __init__(self, width: int, *, groups: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(width, 2 * width, 2, 2)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, 2, groups=groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.up(torch.relu(self.down(x)))


class Attend(nn.Module):
    """Attention over the positions of an image, with heads of size 2."""

    def __init__(self, width: int, *, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, _, height, wide = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        heads = [layer(tokens).view(batch, height * wide, -1, 2).transpose(1, 2)
                 for layer in (self.query, self.key, self.value)]  # fmt: skip
        if self.fused:
            found = F.scaled_dot_product_attention(*heads)
        else:
            found = (heads[0] @ heads[1].transpose(-1, -2)).softmax(-1) @ heads[2]
        tokens = tokens + self.out(found.transpose(1, 2).reshape(batch, height * wide, -1))
        return tokens.transpose(1, 2).reshape(batch, -1, height, wide)


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
    kind = str(rng.choice(PIECES))
    if kind in {"plain", "preact", "inverted"}:
        stride = int(rng.choice((1, 2))) if size >= 4 else 1
        block = Residual(kind, width, wide_out, stride, in_place=bool(rng.integers(2)))
        return block, wide_out, -(-size // stride)
    if kind == "dense":
        return Dense(width, wide_out), width + wide_out, size
    if kind == "twice" and width % 2 == 0:
        return Twice(width), width, size
    if kind == "gate":
        return Gate(width, linear=bool(rng.integers(2))), width, size
    if kind == "shuffle" and width % 2 == 0:
        return Shuffle(width), width, size
    if kind == "updown" and size % 2 == 0:
        return UpDown(width, groups=int(rng.choice((1, 2)))), width, size
    if kind == "attention" and width % 2 == 0:
        return Attend(width, fused=bool(rng.integers(2))), width, size
    if kind == "conv":
        return nn.Sequential(nn.Conv2d(width, wide_out, 3, padding=1), nn.SiLU()), wide_out, size
    if kind == "grouped":
        grouped = nn.Conv2d(width, 2 * width, 3, padding=1, groups=2)
        return nn.Sequential(grouped, nn.GroupNorm(2, 2 * width), nn.ReLU6(inplace=True)), 2 * width, size
    if kind == "pool" and size >= 4:
        return nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(width, wide_out, 1)), wide_out, size // 2
    return nn.Sequential(nn.Conv2d(width, wide_out, 3, padding=1), nn.PReLU(wide_out)), wide_out, size
