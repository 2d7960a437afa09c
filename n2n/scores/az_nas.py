"""The four scores of AZ-NAS, to be put together by `n2n.scores.aggregate`.

J. Lee, B. Ham, *AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search*, CVPR 2024. The features f_l of
the paper's primary blocks, l = 1..L, are those of `n2n.scores.blocks`. Networks run with their own weights on the
probe's images, batch norm with the statistics of the batch; no score looks at labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from n2n.scores.base import Probe, ScoreError, finite
from n2n.scores.blocks import Block, blocks_of
from n2n.scores.loss import differentiable
from n2n.scores.macs import macs


def az_expressivity(network: nn.Module, probe: Probe) -> float:
    """How evenly features use their space, block by block.

        s = sum_l H_l,   H_l = -sum_i p_i ln p_i,   p = the eigenvalues of the covariance of f_l over their sum

    The covariance [C, C] is over images and places. In [0, sum_l ln C_l]. It depends little on the batch where images
    and places are many more than channels; fewer of them cap H_l at the logarithm of their number.

    Raises:
        ScoreError: no blocks with feature maps, or values that are not finite.
        RuntimeError, ValueError: the network does not run on the probe's images.
    """
    return finite(math.fsum(_entropies(network, probe, "az_expressivity")), "az_expressivity", "look at the weights")


def az_progressivity(network: nn.Module, probe: Probe) -> float:
    """By how much the expressivity grows from block to block at least.

        s = min_{l > 1} H_l - H_(l - 1)

    H is that of `az_expressivity`, with what is said there of the batch. Of any sign.

    Raises:
        ScoreError: fewer than two blocks with feature maps, or values that are not finite.
        RuntimeError, ValueError: the network does not run on the probe's images.
    """
    entropies = _entropies(network, probe, "az_progressivity")
    if len(entropies) < 2:
        raise _too_few("az_progressivity", len(entropies))
    growth = min(after - before for before, after in pairwise(entropies))
    return finite(growth, "az_progressivity", "look at the weights")


def az_trainability(network: nn.Module, probe: Probe) -> float:
    """How near the gradient keeps to its size through the blocks.

        s = 1/(L - 1) sum_{l > 1} 2 - q_l - 1/q_l,   q_l = ||A_l||_2,   A_l = mean_p h_p v_p^T [C_in, C_out]

    v is drawn from {-1, 1} in the shape of f_l, h = (df_l/df_(l-1))^T v is what the block makes of it, and p runs over
    images and places; where a block makes maps smaller, the places that become one count as channels of h (places that
    are missing at the edge are zero). At most 0. The batch is an average: fewer images and places leave more noise in
    A_l. Blocks that change the kind of maps (from images to tokens) or make them larger are left out. A block that
    is the identity leaves no score, which in a ranking is the lowest.

    Raises:
        ScoreError: fewer than two such blocks with feature maps, or values that are not finite.
        RuntimeError, ValueError: the network does not run on the probe's images.
    """
    parts = []
    with _blocks(network, probe, "az_trainability") as blocks:
        for before, after in pairwise(blocks):
            if not _shrinks(before, after):
                continue
            if not after.output.requires_grad:
                raise ScoreError("az_trainability: a block lets nothing of its input through; take another score")
            sent = torch.randint_like(after.output, 2) * 2 - 1
            (found,) = torch.autograd.grad(
                after.output, before.output, sent, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            if found.shape == sent.shape and torch.equal(found, sent):
                raise ScoreError(
                    "az_trainability: a block passes on what it is given and has nothing to train; take another score"
                )
            parts.append(_through(before.first(found).double(), after.first(sent).double()))
    if not parts:
        raise _too_few("az_trainability", len(blocks))
    mean = math.fsum(parts) / len(parts)
    return finite(mean, "az_trainability", "a block lets no gradient through, or no finite one: look at the weights")


def az_complexity(network: nn.Module, probe: Probe) -> float:
    """The FLOPs for one image of the probe's shape, two for each multiply-accumulate; see `n2n.networks.macs`.

    Raises:
        RuntimeError: the network does not run on the probe's images.
    """
    return 2 * macs(network, probe)


@contextmanager
def _blocks(network: nn.Module, probe: Probe, name: str) -> Iterator[list[Block]]:
    with differentiable(network, probe, name):
        yield blocks_of(network, probe.images, name)


def _entropies(network: nn.Module, probe: Probe, name: str) -> list[float]:
    """H_l for each block."""
    with _blocks(network, probe, name) as blocks:
        features = [_rows(block.first(block.output.detach())).double() for block in blocks]
    if not all(bool(torch.isfinite(rows).all()) for rows in features):
        raise ScoreError(f"{name}: expected finite features, found others; look at the network's weights")
    return [entropy(rows) for rows in features]


def entropy(rows: Tensor) -> float:
    """`-sum_i p_i ln p_i` of the eigenvalues p of the covariance of rows [n, C], over their sum; 0 for equal rows."""
    centred = rows - rows.mean(dim=0, keepdim=True)
    values = torch.linalg.eigvalsh((centred.T @ centred / len(rows)).cpu()).clamp(min=0)  # [C]
    total = values.sum()
    return float(torch.special.entr(values / total).sum()) if total > 0 else 0.0


def _shrinks(before: Block, after: Block) -> bool:
    """Whether the maps behind are of the kind of those before, and no larger along any axis."""
    given = before.first(before.output).shape[2:]
    made = after.first(after.output).shape[2:]
    return len(given) == len(made) and all(one >= other for one, other in zip(given, made, strict=True))


def _through(found: Tensor, sent: Tensor) -> float:
    """`2 - q - 1/q` of the gradients [B, C_in, *spatial] that a block makes of those sent into it, [B, C_out, ...]."""
    matrix = _rows(_folded(found, sent.shape[2:])).T @ _rows(sent) / (sent.numel() / sent.shape[1])  # [C_in, C_out]
    if not bool(torch.isfinite(matrix).all()):
        return math.nan
    largest = float(torch.linalg.matrix_norm(matrix, ord=2))
    return 2 - largest - 1 / largest if largest > 0 else -math.inf


def _folded(maps: Tensor, places: torch.Size) -> Tensor:
    """Maps [B, C, *spatial] with so many places, neighbours that share one as further channels; zeros at the end."""
    for axis, count in enumerate(places, start=2):
        factor = -(-maps.shape[axis] // count)
        missing = factor * count - maps.shape[axis]
        maps = F.pad(maps, [0, 0] * (maps.ndim - 1 - axis) + [0, missing])
        split = maps.reshape(*maps.shape[:axis], count, factor, *maps.shape[axis + 1 :])
        maps = split.movedim(axis + 1, 2).flatten(1, 2)
    return maps


def _rows(maps: Tensor) -> Tensor:
    """Maps [B, C, *spatial] as rows [B * places, C]."""
    return maps.movedim(1, -1).flatten(0, -2)


def _too_few(name: str, count: int) -> ScoreError:
    return ScoreError(
        f"{name}: expected at least two blocks with feature maps, one after the other, found {count}; take"
        f" 'az_expressivity' or another score"
    )
