"""Small vision transformers: width, depth, and heads and MLP ratio of each block.

Dosovitskiy et al.: "An Image is Worth 16x16 Words", ICLR 2021 (arXiv 2010.11929): patches of 4x4, a class token,
learned positions, pre-norm blocks `x + attention(norm(x))` and `x + mlp(norm(x))` with GELU, a norm and a linear
classifier on the class token. As in AutoFormer (Chen et al., ICCV 2021, arXiv 2107.00651) each block chooses its own
number of heads of a fixed size (16) and its own MLP ratio, and all share the width.

The code is the width, and heads x ratio of each block, `48/2x4-3x2`. Decisions about blocks that the depth leaves out
change nothing: their last action is the only legal one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.family import Choices, Decision, Images, Unit, linear, total, weights
from search_spaces.published import PublishedSpace

WIDTHS = (32, 48, 64)
DEPTHS = (2, 3, 4, 5, 6)
HEADS = (1, 2, 3, 4)
RATIOS = (1, 2, 3, 4)
PATCH, HEAD_SIZE = 4, 16
_BLOCK = re.compile(r"(\d+)x(\d+)")


class Attention(nn.Module):
    """Norm, then attention of heads of a fixed size: tokens [B, N, width] to [B, N, width]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * heads * HEAD_SIZE)
        self.out = nn.Linear(heads * HEAD_SIZE, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, width] to [B, N, width]."""
        parts = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, HEAD_SIZE))  # [B, N, 3, heads, 16]
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, heads, N, 16]
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)  # [B, N, heads * 16]
        given: Tensor = self.out(mixed)
        return given


class Block(nn.Module):
    """A pre-norm block: tokens [B, N, width] to [B, N, width]."""

    def __init__(self, width: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, width] to [B, N, width]."""
        x = x + self.attention(x)
        summed: Tensor = x + self.mlp(x)
        return summed


class VisionTransformer(nn.Module):
    """The network: images [B, C, S, S] of one size to logits [B, K]; `blocks` are heads and ratio of each."""

    def __init__(self, width: int, blocks: tuple[tuple[int, int], ...], images: Images) -> None:
        super().__init__()
        self.image_size = images.image_size
        self.patches = nn.Conv2d(images.channels, width, PATCH, stride=PATCH)
        self.class_token = nn.Parameter(torch.empty(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, _tokens(images), width))
        for learned in (self.class_token, self.positions):
            nn.init.trunc_normal_(learned, std=0.02)
        self.blocks = nn.Sequential(*(Block(width, heads, ratio) for heads, ratio in blocks))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, images.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, S, S] to logits [B, K].

        Raises:
            ValueError: images of another size than the positions were made for.
        """
        if tuple(x.shape[-2:]) != (self.image_size, self.image_size):
            raise ValueError(
                f"this vision transformer has positions for images of {self.image_size}x{self.image_size}, found "
                f"{tuple(x.shape[-2:])}; open the space with image_size={x.shape[-1]}"
            )
        tokens = self.patches(x).flatten(2).transpose(1, 2)  # [B, N - 1, width]
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), tokens], dim=1) + self.positions  # [B, N, width]
        logits: Tensor = self.classifier(self.norm(self.blocks(tokens))[:, 0])
        return logits


def _tokens(images: Images) -> int:
    """N: the patches and the class token."""
    return (images.image_size // PATCH) ** 2 + 1


@final
@dataclass(frozen=True)
class Vit:
    """The family: width and depth first, then heads and ratio, block by block."""

    images: Images
    name = "vit"
    form = "the width and heads x ratio of 2 to 6 blocks, as in 48/2x4-3x2"
    students = len(WIDTHS) * sum((len(HEADS) * len(RATIOS)) ** depth for depth in DEPTHS)

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """Width, depth, and two for each block."""
        blocks = (
            decision
            for block in range(1, DEPTHS[-1] + 1)
            for decision in (Decision(f"block{block}.heads", HEADS), Decision(f"block{block}.mlp_ratio", RATIOS))
        )
        return (Decision("width", WIDTHS), Decision("depth", DEPTHS), *blocks)

    def matters(self, choices: Choices) -> bool:
        """Whether the block that the next decision speaks of is there."""
        return len(choices) < 2 or (len(choices) - 2) // 2 < choices[1]

    def units(self, choices: Choices) -> tuple[Unit, ...]:
        """The embedding, attention and MLP of each block, the classifier with its norm."""
        width, blocks, tokens = choices[0], _blocks(choices), _tokens(self.images)
        patch = self.images.channels * PATCH**2 * width
        # Weights, biases, the positions and the class token; the patches are all tokens but one.
        embedding = weights(patch + width + tokens * width + width, patch * (tokens - 1))
        units = [
            Unit("embedding", "conv", self.images.channels, width, embedding,
                 spatial=self.images.image_size // PATCH, kernel=PATCH, stride=PATCH, decisions=(0,), group="width")
        ]  # fmt: skip
        for block, (heads, ratio) in enumerate(blocks):
            units += _block_units(block, width, heads, ratio, tokens)
        classifier = total(weights(2 * width), linear(width, self.images.classes))
        reason = "it gives the classes"
        last = Unit("classifier", "linear", width, self.images.classes, classifier, reads="width", reason=reason)
        return (*units, last)

    def network(self, choices: Choices) -> nn.Module:
        """A `VisionTransformer`."""
        return VisionTransformer(choices[0], _blocks(choices), self.images)

    def code(self, choices: Choices) -> str:
        """`48/2x4-3x2`."""
        return f"{choices[0]}/{'-'.join(f'{heads}x{ratio}' for heads, ratio in _blocks(choices))}"

    def parse(self, code: str) -> Choices | None:
        """The width, and two numbers for each block."""
        width, _, rest = code.partition("/")
        found = [_BLOCK.fullmatch(part) for part in rest.split("-")]
        if not width.isdecimal() or not all(found):
            return None
        said = [int(number) for one in found if one is not None for number in one.groups()]
        rest_of = [number for _ in range(len(found), DEPTHS[-1]) for number in (HEADS[-1], RATIOS[-1])]
        return (int(width), len(found), *(said + rest_of)[: 2 * DEPTHS[-1]])


def _blocks(choices: Choices) -> tuple[tuple[int, int], ...]:
    """Heads and ratio of the blocks that are there."""
    return tuple((choices[2 + 2 * block], choices[3 + 2 * block]) for block in range(choices[1]))


def _block_units(block: int, width: int, heads: int, ratio: int, tokens: int) -> tuple[Unit, Unit]:
    """Attention and MLP of a block, each with the norm before it."""
    inner = heads * HEAD_SIZE
    attention = total(
        weights(2 * width),
        linear(width, 3 * inner, tokens),
        weights(0, 2 * tokens**2 * inner),  # queries with keys, and what they weigh with values
        linear(inner, width, tokens),
    )
    mlp = total(weights(2 * width), linear(width, ratio * width, tokens), linear(ratio * width, width, tokens))
    removable = block >= DEPTHS[0]
    common = (0, 1) if removable else (0,)
    name = f"block{block + 1}"
    return (
        Unit(f"blocks.{block}.attention", "other", width, width, attention, residual=True, removable=removable,
             decisions=(*common, 2 + 2 * block), group=f"{name}.heads", reads="width"),
        Unit(f"blocks.{block}.mlp", "linear", width, width, mlp, residual=True, removable=removable,
             decisions=(*common, 3 + 2 * block), group=f"{name}.mlp_ratio", reads="width"),
    )  # fmt: skip


def vit(*, classes: int = 10, channels: int = 3, image_size: int = 32) -> PublishedSpace:
    """Opens the space of small vision transformers.

    Args:
        classes: K.
        channels: of the images.
        image_size: height and width of the images, a multiple of 4; the positions are made for it.

    Raises:
        SpaceError: an argument is out of its range.
    """
    return PublishedSpace(Vit(Images(classes, channels, image_size).checked("vit", multiple=PATCH)))
