"""jacov: how differently a network's outputs depend on the images of a batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from n2n.scores.base import Probe, ScoreError, batch_statistics, borrowed, finite

_K = 1e-5


def jacov(network: nn.Module, probe: Probe) -> float:
    """How close the correlations of the images' Jacobians are to none at all.

        s = -sum_i [ln(v_i + k) + 1 / (v_i + k)],   k = 1e-5

    `v` are the eigenvalues of the correlation matrix [B, B] of the rows J_i, the gradient of the sum of all outputs by
    image i. J. Mellor, J. Turner, A. Storkey, E. J. Crowley, *Neural Architecture Search without Training*, first
    version, arXiv:2006.04647v1, 2020 (the second one is `naswot`). Batch norm takes the statistics of the batch, so
    that images also act on each other. At most about -B, which is reached where nothing correlates: it grows with the
    batch, and batches of different sizes do not compare. Two images with one gradient cost 1e5.

    Raises:
        ScoreError: the outputs do not depend on the images, an image's gradient is the same everywhere in it, or one is
            not finite.
        RuntimeError, ValueError: the network does not run on the probe's images.
    """
    with borrowed(network, probe.seed, parameters=False), torch.enable_grad():
        batch_statistics(network)
        images = probe.images.detach().clone().requires_grad_()
        outputs = network(images.clone())  # the network may work in place on what it is given
        rows = _gradient(outputs, images).flatten(1).double()  # [B, CHW]
    rows = rows - rows.mean(dim=1, keepdim=True)
    lengths = rows.norm(dim=1, keepdim=True)  # [B, 1]
    if not bool(torch.isfinite(lengths).all()) or bool((lengths == 0).any()):
        raise ScoreError(
            "jacov: expected finite gradients by the images that differ from place to place, found others; look at the"
            " network's weights, or take another score"
        )
    rows = rows / lengths
    values = torch.linalg.eigvalsh((rows @ rows.T).cpu()).clamp(min=0) + _K  # [B]
    return finite(-float((values.log() + 1 / values).sum()), "jacov", "look at the network's weights")


def _gradient(outputs: Tensor, images: Tensor) -> Tensor:
    """The gradient of the outputs' sum by the images, of their shape."""
    if not isinstance(outputs, Tensor) or not outputs.requires_grad:
        raise ScoreError("jacov: expected outputs that depend on the images, found others; take another score")
    found = torch.autograd.grad(outputs.sum(), images, allow_unused=True)[0]
    if found is None:
        raise ScoreError("jacov: expected outputs that depend on the images, found others; take another score")
    return found
