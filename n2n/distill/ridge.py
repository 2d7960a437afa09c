"""Least squares with a ridge, from chunks of samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

Chunks = Callable[[], Iterator[tuple[Tensor, Tensor]]]
"""Gives the samples anew at each call, in chunks of inputs [G, s, d] and what they should give [G, s, m]."""
LEAST = (0.0, 1e-8, 1e-6)
"""The ridges that are tried one after another where none is asked for."""
GROWTH = (1.0, 100.0, 10_000.0)
"""By how much a ridge is raised where a system cannot be solved."""


@dataclass(frozen=True, eq=False)
class Solution:
    """An affine map for each of G groups.

    `weight` is [G, m, d], `bias` [G, m]. `raised` counts how often the ridge had to be raised; `solved` is false where
    even that did not help, and the map is then the given one.
    """

    weight: Tensor
    bias: Tensor
    raised: int
    solved: bool


@dataclass(frozen=True, eq=False)
class _System:
    """Symmetric systems `(matrix + size * typical * I) z = right` for G groups, and what becomes of a solution z."""

    matrix: Tensor  # [G, k, k] float64
    right: Tensor  # [G, k, m]
    typical: Tensor  # [G]
    finest: float  # the precision of the sums
    weight: Callable[[Tensor], Tensor]


def ridge(chunks: Chunks, prior: Tensor, *, strength: float, intercept: bool = True) -> Solution:
    """The affine map of least squared error that stays near a given one.

    Minimises `1/S sum_s |y - W x - b|^2 + strength * t * |W - W0|^2` for each group, `t` being the mean over the d
    inputs of `1/S sum_s x^2` (about the mean, where there is an intercept), so that `strength` has no unit. Sums over
    samples are taken in their own precision, systems are solved in float64 by Cholesky factorisation: of size d, or of
    size S where there are fewer samples than inputs. Memory: one chunk, and `min(d, S)^2 + S d` (where S < d) numbers
    for each group.

    Args:
        chunks: S samples.
        prior: W0 [G, m, d].
        strength: 0 or more.
        intercept: whether there is a `b`; without it nothing is centred and b is 0.
    """
    count, mean_x, mean_y = _means(chunks, prior)
    if not intercept:
        mean_x, mean_y = torch.zeros_like(mean_x), torch.zeros_like(mean_y)

    def centred() -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in chunks():
            yield x - mean_x.unsqueeze(1), y - mean_y.unsqueeze(1)

    system = _by_samples(centred, prior) if count < prior.shape[2] else _by_inputs(centred, prior)
    sizes = [strength * factor for factor in GROWTH] if strength else LEAST
    for raised, size in enumerate(sizes):
        found = _solve(system, size)
        if found is not None:
            weight = prior.double() + system.weight(found)
            bias = mean_y.double() - (weight @ mean_x.double().unsqueeze(2)).squeeze(2)
            return Solution(weight.to(prior), bias.to(prior), raised, True)
    return Solution(prior, mean_y - (prior @ mean_x.unsqueeze(2)).squeeze(2), len(sizes), False)


def _solve(system: _System, size: float) -> Tensor | None:
    """The solution [G, k, m]; None where it is singular at the samples' precision, or holds no numbers."""
    extra = (size * system.typical).unsqueeze(1).expand(-1, system.matrix.shape[1])
    factor, status = torch.linalg.cholesky_ex(system.matrix + torch.diag_embed(extra))
    pivots = factor.diagonal(dim1=1, dim2=2).square()  # [G, k]
    if bool(status.any()) or not bool((pivots.amin(dim=1) > system.finest * pivots.amax(dim=1)).all()):
        return None
    found = torch.cholesky_solve(system.right, factor)
    return found if bool(found.isfinite().all()) else None


def _by_inputs(samples: Chunks, prior: Tensor) -> _System:
    """The normal equations: [d, d] for each group."""
    groups, _, width = prior.shape
    gram, cross = prior.new_zeros(groups, width, width), torch.zeros_like(prior)
    for x, y in samples():
        gram += x.transpose(1, 2) @ x
        cross += y.transpose(1, 2) @ x
    matrix = gram.double()
    left = cross.double() - prior.double() @ matrix  # [G, m, d]: what the given map leaves to be explained
    typical = matrix.diagonal(dim1=1, dim2=2).mean(dim=1)
    finest = torch.finfo(prior.dtype).eps
    return _System(matrix, left.transpose(1, 2), typical, finest, lambda found: found.transpose(1, 2))


def _by_samples(samples: Chunks, prior: Tensor) -> _System:
    """The same solution by way of the samples' inner products: [S, S] for each group."""
    parts = list(samples())
    x, y = (torch.cat([part[i] for part in parts], dim=1) for i in (0, 1))  # [G, S, d], [G, S, m]
    left = y - x @ prior.transpose(1, 2)
    matrix = (x @ x.transpose(1, 2)).double()
    typical = matrix.diagonal(dim1=1, dim2=2).sum(dim=1) / prior.shape[2]
    finest = torch.finfo(prior.dtype).eps
    return _System(matrix, left.double(), typical, finest, lambda found: found.transpose(1, 2) @ x.double())


def _means(chunks: Chunks, prior: Tensor) -> tuple[int, Tensor, Tensor]:
    """How many samples there are, and the means [G, d] and [G, m]."""
    count = 0
    sum_x, sum_y = prior.new_zeros(prior.shape[0], prior.shape[2]), prior.new_zeros(prior.shape[:2])
    for x, y in chunks():
        count += x.shape[1]
        sum_x += x.sum(dim=1)
        sum_y += y.sum(dim=1)
    return count, sum_x / max(1, count), sum_y / max(1, count)
