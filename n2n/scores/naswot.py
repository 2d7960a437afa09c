"""NASWOT: how differently the images of a batch switch a network's ReLU units."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from n2n.scores.base import Probe, ScoreError, finite
from n2n.scores.relu_codes import read_codes

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
    # On how many units each two images agree.
    kernel = torch.zeros(images, images, dtype=torch.float64, device=probe.images.device)  # [B, B]

    def agree(code: Tensor) -> None:
        signs = code.to(torch.float32 if code.shape[1] < _EXACT else torch.float64)
        signs = 2 * signs - 1  # [B, units of this ReLU], so that a product counts agreements minus disagreements
        kernel.add_((signs @ signs.T + signs.shape[1]) / 2)

    units = read_codes(network, probe, "naswot", agree)
    eigenvalues = torch.linalg.eigvalsh(kernel.cpu())  # [B], ascending
    # The kernel is positive semi-definite; below the rounding of its largest eigenvalue one of them is zero.
    if float(eigenvalues[0]) <= images * torch.finfo(torch.float64).eps * float(eigenvalues[-1]):
        cause = (
            f"there are more images than units; take at most {units + 1:,}"
            if images > units + 1
            else "to this network some images look alike: no path leads there, or they are equal; take another score"
        )
        raise ScoreError(
            f"naswot: expected {images} images with codes that a kernel of full rank comes from, found a singular one"
            f" from {units:,} ReLU units: {cause}"
        )
    return finite(float(eigenvalues.log().sum()), "naswot", "look at the network's values")
