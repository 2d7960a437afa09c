"""Correlation congruence: kernels between the examples of a batch."""

from __future__ import annotations

import math

from torch import Tensor

from n2n.distill.objectives.base import Batch, Needs, Objective, Seen
from n2n.distill.objectives.exact import exact, over_length


def gaussian_kernel(products: Tensor, gamma: float, order: int) -> Tensor:
    """`exp(-g ||x - y||^2)` for unit vectors by Taylor's series, `sum_p^P e^-2g (2g)^p / p! (x.y)^p` (eq. 10).

    Args:
        products: x.y, of any shape.
        gamma: g.
        order: P.
    """
    terms = [(2 * gamma) ** power / math.factorial(power) * products**power for power in range(order + 1)]
    return math.exp(-2 * gamma) * sum(terms[1:], start=terms[0])


def bilinear_kernel(products: Tensor, gamma: float, order: int) -> Tensor:
    """`x.y` itself."""
    del gamma, order
    return products


KERNELS = {"gaussian": gaussian_kernel, "bilinear": bilinear_kernel}


@exact
def correlation(
    student: Seen, teacher: Seen, batch: Batch, *, kernel: str = "gaussian", gamma: float = 0.4, order: int = 2
) -> Tensor:
    """`1/B^2 ||C_t - C_s||_F^2` of penultimate features of length 1 (Peng et al., ICCV 2019, arXiv:1904.01802, eq. 6).

    C [B, B] are kernels between examples, one of `KERNELS`. In [0, 4]; widths may differ. It sees one batch: the value
    depends on its size. The features are compared as they are, without a layer that embeds them; the paper's batches
    hold several examples of each of their classes, ours are drawn at random.
    """
    del batch
    units = (over_length(seen.maps[0], 1) for seen in (teacher, student))  # [B, D]
    products = (rows @ rows.T for rows in units)  # [B, B]
    theirs, ours = (KERNELS[kernel](one, gamma, order) for one in products)
    return (theirs - ours).square().mean()


CORRELATION = Objective("correlation", Needs(features="penultimate"), correlation)
