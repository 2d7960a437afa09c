"""Networks that are awkward to export, each with one batch of inputs: what users' own code does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Made = tuple[nn.Module, Any]


class Concat(nn.Module):
    """A dense connection, functional calls, and a slice of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(7, 6, 3, 2, 1, bias=False)
        self.norm, self.fc = nn.BatchNorm2d(6), nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv1(x))
        y = F.leaky_relu(self.norm(self.conv2(torch.cat([x, y], 1))), 0.1)
        a, b = y.chunk(2, 1)
        y = F.max_pool2d(a * torch.sigmoid(b), 2) - 0.5
        out: Tensor = self.fc(F.adaptive_avg_pool2d(y, 1).flatten(1))
        return out


class TwoOutputs(nn.Module):
    """A dict of a tensor and a tuple; the batch is read from the input's shape."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(12, 8), nn.Linear(8, 3)

    def forward(self, image: Tensor) -> dict[str, Any]:
        hidden = self.body(image.view(image.size(0), -1)).tanh()
        return {"logits": self.head(hidden), "rest": (hidden, hidden.mean(1))}


class Twice(nn.Module):
    """One conv, norm and activation called twice, the activation in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm(self.conv(x)))
        y = self.act(self.norm(self.conv(y)))
        return (y + x).mean((2, 3))


class Outside(nn.Module):
    """Parameters and buffers outside layers, a constant, and a moving average kept by hand without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(4, 1, 1))
        self.register_buffer("mean", torch.rand(4, 1, 1), persistent=False)
        self.register_buffer("seen", torch.zeros(()))
        self.mean: Tensor
        self.seen: Tensor
        self.conv = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.seen = self.seen * 0.9 + 0.1
        y = (x - self.mean) * self.scale * torch.tensor(2.0)
        return torch.amax(self.conv(y), dim=(2, 3)).softmax(-1)


class Dropping(nn.Module):
    """Dropout as a layer, as a function, and one that is always off."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.fc = nn.Dropout(0.4), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop(F.gelu(self.fc(x), approximate="tanh"))
        y = F.dropout(self.fc(y), 0.3, self.training)
        return F.dropout(y, 0.2, training=False)


class Modes(nn.Module):
    """Code of its own for train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.noise = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = x + self.noise(torch.randn_like(x))
        out: Tensor = self.fc(x)
        return out


class Attention(nn.Module):
    """A transformer block with its own attention, a class token, tied weights and two named inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(30, 16), nn.Linear(16, 30, bias=False)
        self.head.weight = self.embed.weight
        self.heads = 4
        self.token, self.place = nn.Parameter(torch.randn(1, 1, 16)), nn.Parameter(torch.randn(1, 10, 16))
        self.norm, self.qkv, self.out = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = torch.cat((self.token.expand(ids.shape[0], -1, -1), self.embed(ids)), 1) + self.place
        b, t, c = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        allowed = F.pad(mask, (1, 0), value=True)[:, None, None]
        drop = 0.1 if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=drop)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, c))
        logits: Tensor = self.head(x[:, 0])
        return logits


class Shuffle(nn.Module):
    """Channel shuffle by views, a gate of squeeze and excitation, grouped and transposed convs, and other norms."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.mix = nn.ConvTranspose2d(4, 8, 2, stride=2), nn.Conv2d(8, 8, 3, padding="same", groups=2)
        self.norm, self.other = nn.GroupNorm(2, 8), nn.InstanceNorm2d(8, affine=True)
        self.squeeze, self.excite = nn.Linear(8, 2), nn.Linear(2, 8)
        self.last = nn.LayerNorm((8, 8, 8), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.mix(self.up(x)))
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        gate = self.excite(F.silu(self.squeeze(x.mean((2, 3))))).sigmoid()
        out: Tensor = self.last(self.other(x * gate[:, :, None, None]))
        return out


class Nested(nn.Module):
    """One input that is a tuple of a tensor and a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 2), nn.Linear(3, 2)

    def forward(self, pair: tuple[Tensor, dict[str, Tensor]]) -> tuple[Tensor, Tensor]:
        left, right = self.a(pair[0]), self.b(pair[1]["more"])
        return left + right, left


class Odd(nn.Module):
    """Names that are no attribute names or collide, another dtype, and an input that is called F."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 4)))
        self.layers_0 = nn.Linear(4, 4)
        self.add_module("0", nn.Linear(4, 4))
        self.slopes, self.wide = nn.PReLU(4), nn.Linear(4, 2).double()

    def forward(self, F: Tensor) -> Tensor:  # noqa: N803 - that is what is awkward
        x = self.layers_0(self.layers(F))
        x = self.get_submodule("0")(x)
        out: Tensor = self.wide(self.slopes(x).double())
        return out


class Keyword(nn.Module):
    """A module whose name is a keyword, which torch.export writes but cannot read."""

    def __init__(self) -> None:
        super().__init__()
        self.add_module("lambda", nn.Linear(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.get_submodule("lambda")(x)
        return out


class FixedBatch(nn.Module):
    """The batch is fixed by the code: `len` of a tensor is a plain number."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(x).view(len(x), 2)
        return out


class Noisy(nn.Module):
    """Gives something else in every call, so that no export can agree with it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(x)
        return out + torch.rand_like(out)


def _images(channels: int, size: int = 8) -> Tensor:
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))


NETWORKS: dict[str, Callable[[], Made]] = {
    "concat": lambda: (Concat(), _images(3)),
    "two outputs": lambda: (TwoOutputs(), torch.randn(2, 3, 4)),
    "twice": lambda: (Twice(), _images(4)),
    "outside": lambda: (Outside(), _images(4)),
    "dropping": lambda: (Dropping(), torch.randn(2, 16)),
    "modes": lambda: (Modes(), torch.randn(2, 6)),
    "attention": lambda: (
        Attention(),
        {"ids": torch.arange(18).view(2, 9), "mask": torch.ones(2, 9, dtype=torch.bool)},
    ),
    "shuffle": lambda: (Shuffle(), _images(4, 4)),
    "nested": lambda: (Nested(), ((torch.randn(2, 4), {"more": torch.randn(2, 3)}),)),
    "odd": lambda: (Odd(), torch.randn(2, 4)),
    "encoder": lambda: (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), torch.randn(2, 5, 8)),
}


def make(name: str) -> Made:
    """A network of `NETWORKS`, always with the same weights, and its inputs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return NETWORKS[name]()
