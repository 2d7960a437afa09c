"""SWAP: how many different things a network's ReLU units see in a batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from n2n.scores.base import Probe
from n2n.scores.relu_codes import read_codes

_BITS = 62
"""Bits that are packed into an int64, whose sign stays out of it."""


def swap(network: nn.Module, probe: Probe) -> float:
    """The number of different sample-wise activation patterns.

        s = |{p_v}|,   p_v = (1[unit v is on for image b])_{b = 1..B}

    Y. Peng, A. Song, H. M. Fayek, V. Ciesielski, X. Chang, *SWAP-NAS: Sample-Wise Activation Patterns for Ultra-fast
    NAS*, ICLR 2024, without the regularisation by a wished number of parameters (a budget does that here). Units are
    counted as in `naswot`, and batch norm takes the statistics of the batch. From 1 to the smaller of 2^B and the
    number of units: it grows with the batch, and batches of different sizes do not compare.

    Raises:
        ScoreError: no ReLU runs; one is given something else than one entry per image; or the outputs are not finite.
        RuntimeError, ValueError: the network does not run on the probe's images.
    """
    found: list[Tensor] = []
    read_codes(network, probe, "swap", lambda code: found.append(_different(packed(code.T))))
    return float(len(_different(torch.cat(found))))


def _different(rows: Tensor) -> Tensor:
    """The rows without repeats."""
    # Sorting numbers is ten times as fast as sorting rows.
    different: Tensor = torch.unique(rows[:, 0])[:, None] if rows.shape[1] == 1 else torch.unique(rows, dim=0)
    return different


def packed(patterns: Tensor) -> Tensor:
    """Patterns [units, B] of bits as whole numbers [units, ceil(B / 62)] int64, different where they differ."""
    words = [
        (part.long() << torch.arange(part.shape[1], device=part.device)).sum(dim=1)
        for part in torch.split(patterns, _BITS, dim=1)
    ]
    return torch.stack(words, dim=1)
