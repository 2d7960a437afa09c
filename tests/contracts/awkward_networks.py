"""Small networks whose channels, inputs or modules are hard to follow, with inputs: `CASES[name]` makes both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv(wide_in: int, wide_out: int, kernel: int = 3, **arguments: Any) -> nn.Sequential:
    padding = kernel // 2
    layer = nn.Conv2d(wide_in, wide_out, kernel, padding=padding, bias=False, **arguments)
    return nn.Sequential(layer, nn.BatchNorm2d(wide_out), nn.ReLU())


class Headed(nn.Module):
    """A stem, the body under test on 8 channels, and a classifier on `wide` channels."""

    def __init__(self, body: nn.Module, wide: int = 8) -> None:
        super().__init__()
        self.stem, self.body = conv(3, 8), body
        self.classifier = nn.Linear(wide, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.body(self.stem(x)).mean((2, 3)))


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = conv(8, 4), conv(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, self.one(x)], 1)
        return torch.cat([x, self.two(x)], 1)


class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.three = conv(8, 4, 1), nn.Sequential(conv(8, 2, 1), conv(2, 6, 3))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(8, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.one(x), self.three(x), self.pooled(x)), dim=1)


class Res2(nn.Module):
    """Res2Net's hierarchy: each quarter of the channels sees the one before it."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce, self.expand = conv(8, 16, 1), conv(16, 8, 1)
        self.steps = nn.ModuleList(conv(4, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(torch.split(self.reduce(x), 4, dim=1))
        for i, step in enumerate(self.steps, start=1):
            parts[i] = step(parts[i] + parts[i - 1])
        return F.relu(x + self.expand(torch.cat(parts, dim=1)))


class ConvGate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(8, 8)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 8, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return x + y * self.gate(y)


class LinearGate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first, self.second = conv(8, 8), nn.Linear(8, 4), nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        batch, channels, _, _ = y.size()
        gate = F.adaptive_avg_pool2d(y, 1).view(batch, channels)
        gate = torch.sigmoid(self.second(F.relu(self.first(gate)))).view(batch, channels, 1, 1)
        return x + y * gate.expand_as(y)


class Chunked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = conv(8, 12), conv(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.wide(x).chunk(2, dim=1)
        return x + self.narrow(left * torch.sigmoid(right))


class Shuffled(nn.Module):
    """ShuffleNet v2's unit: half of the channels pass, then the halves are interleaved."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(conv(4, 4, 1), conv(4, 4, groups=4), conv(4, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.split(4, dim=1)
        x = torch.cat((left, self.branch(right)), dim=1)
        batch, channels, height, width = x.shape
        return x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)


class UpAndDown(nn.Module):
    """A small U-Net: strided, transposed, concatenated, cropped and interpolated."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = conv(8, 12, stride=2), nn.ConvTranspose2d(12, 8, 2, stride=2)
        self.join, self.grouped = conv(16, 8), nn.ConvTranspose2d(8, 8, 3, padding=1, groups=4)

    def forward(self, x: Tensor) -> Tensor:
        up = self.up(self.down(x))
        joined = self.join(torch.cat([x[:, :, : up.shape[2]], up], dim=1))
        return self.grouped(F.interpolate(joined, scale_factor=2.0, mode="nearest"))


class Norms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1, groups=2), nn.GroupNorm(3, 12), nn.SiLU())
        self.instance = nn.Sequential(nn.Conv2d(12, 8, 1), nn.InstanceNorm2d(8, affine=True), nn.PReLU(8))
        self.layer = nn.LayerNorm(8)
        self.scale = nn.Parameter(torch.full((8,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.instance(self.grouped(x)).permute(0, 2, 3, 1)
        return x + (self.scale * self.layer(y)).permute(0, 3, 1, 2)


class Twice(nn.Module):
    """A block called twice, a norm registered under two names, and an activation that two modules share."""

    def __init__(self) -> None:
        super().__init__()
        act = nn.ReLU()
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), act)
        self.other = nn.Sequential(nn.Conv2d(8, 8, 1), self.block[1], act)

    def forward(self, x: Tensor) -> Tensor:
        return self.other(self.block(self.block(x))) + x


class Tied(nn.Module):
    """Two convs that hold one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.last = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), conv(8, 8)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.two(F.relu(self.one(x)))))


class LayerScale(nn.Module):
    """ConvNext's block: its own forward permutes, and scales the branch by a parameter of the block."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.LayerNorm(8)
        self.up, self.down, self.scale = nn.Linear(8, 24), nn.Linear(24, 8), nn.Parameter(torch.full((8,), 0.3))

    def forward(self, x: Tensor) -> Tensor:
        branch = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        branch = self.scale * self.down(F.gelu(self.up(branch)))
        return x + branch.permute(0, 3, 1, 2)


class Functional(nn.Module):
    """A conv and a linear without modules, a scale for each channel, and a bias that is added by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(8, 8)
        self.weight = nn.Parameter(torch.randn(8, 8, 3, 3) * 0.1)
        self.gamma = nn.Parameter(torch.ones(8, 1, 1) * 0.5)
        self.matrix = nn.Parameter(torch.randn(8, 8) * 0.3)
        self.register_buffer("offset", torch.ones(1, 8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(self.conv(x), self.weight, padding=1) * self.gamma + self.offset
        return x + F.linear(y.permute(0, 2, 3, 1), self.matrix).permute(0, 3, 1, 2)


class OneDimension(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv1d(4, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2),
            nn.Conv1d(8, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU(), nn.ConvTranspose1d(8, 6, 2, stride=2),
            nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 5),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)


class ThreeDimensions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(2, 6, 3, padding=1), nn.BatchNorm3d(6), nn.ReLU())
        self.block = nn.Sequential(nn.Conv3d(6, 6, 3, padding=1), nn.BatchNorm3d(6))
        self.classifier = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool3d(self.stem(x), 2)
        return self.classifier(F.adaptive_avg_pool3d(F.relu(x + self.block(x)), 1).flatten(1))


class Pair(NamedTuple):
    logits: Tensor
    hidden: dict[str, Tensor]


class Structured(nn.Module):
    """Two named inputs, and an output of named parts."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.vector = nn.Sequential(conv(3, 8), conv(8, 8)), nn.Sequential(nn.Linear(4, 8), nn.ReLU())
        self.mixer, self.classifier = nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, image: Tensor, vector: Tensor) -> Pair:
        x = self.image(image).mean((2, 3)) + self.vector(vector)
        x = x + F.relu(self.mixer(x))
        return Pair(self.classifier(x), {"features": x, "twice": 2 * x})


class OwnAttention(nn.Module):
    """Heads and sizes stored as whole numbers, positions and a class token outside modules."""

    def __init__(self, dim: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.dim, self.scale = heads, dim // heads, (dim // heads) ** -0.5
        self.embed = nn.Linear(6, dim)
        self.token, self.position = nn.Parameter(torch.randn(1, 1, dim)), nn.Parameter(torch.randn(1, 8, dim))
        self.norm, self.qkv, self.out = nn.LayerNorm(dim), nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 24), nn.GELU(), nn.Linear(24, dim), nn.Dropout(0.1))
        self.classifier = nn.Linear(dim, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), self.embed(x)], dim=1) + self.position
        batch, length, _ = x.shape
        qkv = self.qkv(self.norm(x)).view(batch, length, 3, self.heads, self.dim).permute(2, 0, 3, 1, 4)
        query, key, value = qkv[0], qkv[1], qkv[2]
        weights = ((query @ key.transpose(-2, -1)) * self.scale).softmax(dim=-1)
        x = x + self.out((weights @ value).transpose(1, 2).reshape(batch, length, self.heads * self.dim))
        x = x + self.mlp(x)
        return self.classifier(x[:, 0])


class SelfAttention(nn.Module):
    """A module of its own that gives two things, with a bias for each pair of positions outside its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(16, 16) for _ in range(4))
        self.bias = nn.Parameter(torch.zeros(4, 7, 7))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        query, key, value = (f(x).view(*x.shape[:2], 4, 4).transpose(1, 2) for f in (self.query, self.key, self.value))
        weights = ((query @ key.transpose(2, 3)) / 2 + self.bias).softmax(-1)
        return self.out((weights @ value).transpose(1, 2).flatten(2)), weights


class Separate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.attention = nn.Linear(6, 16), nn.LayerNorm(16), SelfAttention()
        self.last, self.classifier = nn.Linear(16, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.attention(self.norm(x))[0]
        return self.classifier(self.last(x).mean(1))


class TorchAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(6, 16), nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.classifier = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.classifier((x + self.mlp(x)).mean(1))


class TorchEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.classifier = nn.Linear(16, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.classifier(self.encoder(self.embed(tokens)).mean(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm = nn.Linear(6, 8), nn.LSTM(8, 8, batch_first=True)
        self.hidden, self.classifier = nn.Linear(8, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(self.embed(x))
        return self.classifier(F.relu(self.hidden(y[:, -1])))


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.classifier = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return self.classifier(self.one(x))
        return self.classifier(self.two(x))


def image() -> Tensor:
    return torch.randn(2, 3, 8, 8)


def sequence() -> Tensor:
    return torch.randn(2, 7, 6)


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "dense": (lambda: Headed(Dense(), 18), image),
    "inception": (lambda: Headed(Inception(), 13), image),
    "res2": (lambda: Headed(Res2()), image),
    "conv-gate": (lambda: Headed(ConvGate()), image),
    "linear-gate": (lambda: Headed(LinearGate()), image),
    "chunked": (lambda: Headed(Chunked()), image),
    "shuffled": (lambda: Headed(Shuffled()), image),
    "up-and-down": (lambda: Headed(UpAndDown()), image),
    "depthwise": (lambda: Headed(nn.Sequential(conv(8, 16, 3, groups=8), conv(16, 8, 1), conv(8, 8, groups=4))), image),
    "norms": (lambda: Headed(Norms()), image),
    "twice": (lambda: Headed(Twice()), image),
    "tied": (lambda: Headed(Tied()), image),
    "layer-scale": (lambda: Headed(nn.Sequential(LayerScale(), LayerScale())), image),
    "functional": (lambda: Headed(Functional()), image),
    "one-dimension": (OneDimension, lambda: torch.randn(2, 4, 12)),
    "three-dimensions": (ThreeDimensions, lambda: torch.randn(2, 2, 4, 4, 4)),
    "dict-inputs": (Structured, lambda: {"vector": torch.randn(2, 4), "image": image()}),
    "tuple-inputs": (Structured, lambda: (image(), torch.randn(2, 4))),
    "own-attention": (OwnAttention, sequence),
    "own-attention-module": (Separate, sequence),
    "torch-attention": (TorchAttention, sequence),
    "torch-encoder": (TorchEncoder, lambda: torch.randint(0, 20, (2, 7))),
    "recurrent": (Recurrent, sequence),
}
