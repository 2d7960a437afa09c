"""NASWOT: how differently the images of a batch switch a network's ReLU units."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from n2n.scores.base import Probe, ScoreError, borrowed, finite
from n2n.scores.relu_codes import watching_relus

_EXACT = 2**24
"""Whole numbers up to here are exact in float32, so that sums of ones need no float64."""


def naswot(network: nn.Module, probe: Probe) -> float:
    """The log-determinant of the Hamming kernel of the images' ReLU codes.

        s = ln |det K|,   K_ij = N_A - d_H(c_i, c_j)   [B, B]

    `c_i` is the binary code of image i (1 where a ReLU unit's input is above 0), `N_A` the number of units, `d_H` the
    Hamming distance: K counts the units on which two images agree. J. Mellor, J. Turner, A. Storkey, E. J. Crowley,
    *Neural Architecture Search without Training*, ICML 2021. As in its release, batch norm takes the statistics of the
    batch; everything else, dropout for instance, runs as in evaluation.

    What counts as a ReLU is said in `n2n.scores.relu_codes.relu_threshold`; how it is written does not matter. All that
    run count, also those whose values reach no output. Images lie along the first axis of what a ReLU is given.

    Raises:
        ScoreError: no ReLU runs; one is given something else than one entry per image; the outputs are not finite; or
            K is singular, as it is where two images have one code, and always for more than N_A + 1 images.
        RuntimeError, ValueError: the network does not run on the probe's images.
    """
    images = len(probe.images)
    with borrowed(network, probe.seed, parameters=False), torch.no_grad():
        for norm in network.modules():
            if isinstance(norm, _BatchNorm):
                norm.train()
        kernel, units = _agreements(network, probe.images)
    eigenvalues = torch.linalg.eigvalsh(kernel.cpu())  # [B], ascending
    # The kernel is positive semi-definite; below the rounding of its largest eigenvalue one of them is zero.
    if float(eigenvalues[0]) <= images * torch.finfo(torch.float64).eps * float(eigenvalues[-1]):
        raise ScoreError(
            f"naswot: expected {images} images with codes that a kernel of full rank comes from, found a singular one"
            f" from {units:,} ReLU units; take fewer images (at most {units + 1:,}), or another score"
        )
    return finite(float(eigenvalues.log().sum()), "naswot", "look at the network's values")


def _agreements(network: nn.Module, images: Tensor) -> tuple[Tensor, int]:
    """On how many units each two images agree, [B, B] float64, and the number of units; runs the network once."""
    count = len(images)
    kernel = torch.zeros(count, count, dtype=torch.float64, device=images.device)  # [B, B]
    units = 0

    def see(code: Tensor) -> None:
        nonlocal units
        if code.ndim == 0 or len(code) != count:
            raise ScoreError(
                f"naswot: expected the {count} images along the first axis of what every ReLU is given, found a ReLU of"
                f" shape {list(code.shape)}; its codes cannot be told apart by image: take another score"
            )
        signs = code.reshape(count, -1).to(torch.float32 if code[0].numel() < _EXACT else torch.float64)
        signs = 2 * signs - 1  # [B, units of this ReLU], so that a product counts agreements minus disagreements
        kernel.add_((signs @ signs.T + signs.shape[1]) / 2)
        units += signs.shape[1]

    with watching_relus(see):
        outputs = network(images)
    if units == 0:
        raise ScoreError("naswot: expected ReLU units, found none in the forward pass; take another score")
    if isinstance(outputs, Tensor) and not bool(torch.isfinite(outputs).all()):
        raise ScoreError("naswot: expected finite outputs, found NaN or infinite ones; look at the network's weights")
    return kernel, units
