"""Modules of an objective's own: made from a seed, for maps with any number of places' axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)
_CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def seeded(seed: int, make: Callable[[], M]) -> M:
    """What `make` gives, with weights drawn from the seed; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make()


def conv(axes: int, inputs: int, outputs: int, kernel: int = 1, bias: bool = True) -> nn.Module:
    """A convolution of [B, inputs, *spatial] with so many spatial axes that keeps their size; kernels are odd.

    Raises:
        ValueError: the maps have no spatial axes, or more than three.
    """
    return _CONVS[_known(axes)](inputs, outputs, kernel, padding=kernel // 2, bias=bias)


def norm(axes: int, channels: int) -> nn.Module:
    """A batch norm of [B, channels, *spatial] with so many spatial axes; the same errors as `conv`."""
    return _NORMS[_known(axes)](channels)


def _known(axes: int) -> int:
    if axes not in _CONVS:
        raise ValueError(
            f"expected maps [B, C, *spatial] with one to three spatial axes, found {axes}; name layers that give such"
            " maps"
        )
    return axes
