"""What the formulas share: exact arithmetic under autocast, lengths whose gradient exists, maps brought to one size."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Concatenate, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from n2n.distill.features import INSTEAD
from n2n.distill.objectives.base import Batch, Seen

P = ParamSpec("P")
T = TypeVar("T")
Loss = Callable[Concatenate[Seen, Seen, Batch, P], Tensor]


def exact(loss: Loss[P]) -> Loss[P]:
    """The loss with autocast off, on tensors of float32 at least, with a teacher that no gradient reaches.

    Autocast casts every matrix product to half precision whatever its inputs are, so that converting them is not enough
    for Gram matrices, kernels and angles. Float64 stays what it is.
    """

    @functools.wraps(loss)
    def run(student: Seen, teacher: Seen, batch: Batch, /, *args: P.args, **options: P.kwargs) -> Tensor:
        with torch.autocast(student.logits.device.type, enabled=False):
            return loss(
                _each(student, full), _each(teacher, lambda values: full(values).detach()), batch, *args, **options
            )

    return run


def _each(seen: Seen, change: Callable[[Tensor], Tensor]) -> Seen:
    return Seen(change(seen.logits), tuple(map(change, seen.maps)))


def full(values: Tensor) -> Tensor:
    """The values in float32, or in float64 where they are."""
    return values if values.dtype == torch.float64 else values.float()


def lengths(values: Tensor, dim: int = -1, keepdim: bool = False) -> Tensor:
    """The L2 norms along an axis; the gradient at 0 is 0, where that of a plain square root is NaN."""
    squared = values.square().sum(dim=dim, keepdim=keepdim)
    positive = squared > 0
    return torch.where(positive, torch.where(positive, squared, 1.0).sqrt(), 0.0)


def over_length(values: Tensor, dim: int = -1) -> Tensor:
    """The values over their L2 norm along an axis, so that it is 1; zeros stay zeros."""
    norms = lengths(values, dim, keepdim=True)
    return values / torch.where(norms > 0, norms, 1.0)


_POOLS: Mapping[int, Callable[..., Tensor]] = {
    1: F.adaptive_avg_pool1d,
    2: F.adaptive_avg_pool2d,
    3: F.adaptive_avg_pool3d,
}


def one_size(student: Tensor, teacher: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Both maps with as many places: the larger is average-pooled to the smaller, axis by axis.

    Tokens [B, C, N] become the grid [B, C, H, W] that they were cut from where the other network has two axes, or
    another grid of tokens: N is a square, or a square and a class token before it, which is left out.

    Args:
        student: [B, C_s, *spatial].
        teacher: [B, C_t, *spatial].
        name: of the objective, for errors.

    Raises:
        ValueError: other numbers of axes, or more than three that differ in size.
    """
    if student.shape[2:] != teacher.shape[2:]:
        grids = _grid(student), _grid(teacher)
        student, teacher = grids if grids[0].dim() == grids[1].dim() else (student, teacher)
    if student.dim() != teacher.dim() or len(student) != len(teacher):
        raise ValueError(
            f"{name}: expected maps [B, C, *spatial] of the same examples from both networks, found"
            f" {list(student.shape)} from the student and {list(teacher.shape)} from the teacher; name other layers, or"
            f" {INSTEAD}"
        )
    size = [min(pair) for pair in zip(student.shape[2:], teacher.shape[2:], strict=True)]
    return _pooled(student, size, name), _pooled(teacher, size, name)


def _grid(maps: Tensor) -> Tensor:
    """Tokens [B, C, N] as [B, C, H, H] where N is H^2 or H^2 + 1; anything else as it is."""
    if maps.dim() != 3:
        return maps
    side = math.isqrt(maps.shape[2])
    if maps.shape[2] - side**2 > 1:
        return maps
    return maps[:, :, maps.shape[2] - side**2 :].reshape(*maps.shape[:2], side, side)


def _pooled(maps: Tensor, size: list[int], name: str) -> Tensor:
    if list(maps.shape[2:]) == size:
        return maps
    if len(size) not in _POOLS:
        raise ValueError(
            f"{name}: maps of size {list(maps.shape[2:])} cannot be pooled to {size}: expected at most three axes; name"
            f" other layers, or {INSTEAD}"
        )
    return _POOLS[len(size)](maps, tuple(size))


def pairs_of_maps(student: Seen, teacher: Seen, name: str) -> list[tuple[Tensor, Tensor]]:
    """The maps of both networks by position, each pair of one size; see `one_size` for the errors."""
    return [one_size(*pair, name) for pair in zip(student.maps, teacher.maps, strict=True)]


def need(value: T | None, name: str, what: str) -> T:
    """The value, or an error that names what the objective has to be given."""
    if value is None:
        raise ValueError(f"{name}: expected {what}, found none; {INSTEAD}")
    return value
