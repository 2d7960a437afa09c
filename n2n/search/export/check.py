"""Whether an exported network still computes what the network computes: one comparison for every format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from n2n.search.errors import ExportError
from n2n.search.export.subject import CAPTURE_ERRORS, RunFn, Subject

EXACT = 0.0
"""Formats that run the same kernels on the same numbers."""
RECORDED = 1e-6
"""`.pt2`: the same kernels, replayed from a recorded graph."""
OTHER_KERNELS = 1e-4
"""ONNX: other kernels, fused and summed in another order, in single precision."""
TRAINING = 1e-5
"""Gradients in train mode, where values are summed in no fixed order."""


def difference(expected: Any, found: Any, *, what: str) -> float:
    """The largest difference of two outputs as a share of the scale max |expected| of the tensor that it is in.

    NaN and infinities count as equal where both have them, and as an infinite difference elsewhere.

    Raises:
        ExportError: the outputs differ in structure, shape or dtype.
    """
    (ours, structure), (theirs, other) = pytree.tree_flatten(expected), pytree.tree_flatten(found)
    if structure != other:
        raise ExportError(f"{what}: outputs have the structure {other}, the network's have {structure}")
    pairs = enumerate(zip(ours, theirs, strict=True))
    return max((leaf_difference(a, b, what=f"{what}, output {i}") for i, (a, b) in pairs), default=0.0)


def leaf_difference(expected: Any, found: Any, *, what: str) -> float:
    """`difference` of two tensors; None and numbers must be equal.

    Raises:
        ExportError: they differ in kind, shape or dtype.
    """
    if not isinstance(expected, Tensor) or not isinstance(found, Tensor):
        if type(expected) is type(found) and expected == found:
            return 0.0
        raise ExportError(f"{what}: found {found!r}, the network gives {expected!r}")
    if expected.shape != found.shape or expected.dtype != found.dtype:
        raise ExportError(
            f"{what}: found {list(found.shape)} {found.dtype}, the network gives {list(expected.shape)} "
            f"{expected.dtype}"
        )
    if expected.numel() == 0:
        return 0.0
    a, b = expected.detach().double(), found.detach().double()
    gap = torch.where((a == b) | (a.isnan() & b.isnan()), torch.zeros_like(a), (a - b).abs())
    gap = gap.nan_to_num(nan=torch.inf, posinf=torch.inf)
    finite = a[a.isfinite()].abs()
    scale = finite.max().item() if len(finite) else 0.0
    return gap.max().item() / (scale or 1.0)


def verify(subject: Subject, run: RunFn, tolerance: float, *, what: str) -> float:
    """Runs the network and its export on fresh inputs of each batch size, and returns the largest difference.

    Raises:
        ExportError: the difference is above the tolerance, or the export does not run.
    """
    worst = 0.0
    for seed, batch in enumerate(sizes(subject)):
        args, kwargs = subject.inputs(batch, seed)
        with torch.enable_grad():  # without gradients, nn.MultiheadAttention runs other kernels than were captured
            expected = subject.network(*args, **kwargs)
            try:
                found = run(*args, **kwargs)
            except CAPTURE_ERRORS as error:
                raise ExportError(
                    f"{what} does not run on a batch of {batch}: {' '.join(str(error).split())[:400]}. "
                    + _remedy(subject)
                ) from error
        where = f"{what}, batch of {batch}"
        worst = max(worst, within(difference(expected, found, what=where), tolerance, what=where))
    return worst


def sizes(subject: Subject) -> Sequence[int]:
    """The example's batch size, and those that prove that the batch is dynamic."""
    return (subject.batch, *subject.batches)


def within(found: float, tolerance: float, *, what: str) -> float:
    """`found`, where it is within the tolerance.

    Raises:
        ExportError: it is not.
    """
    if not found <= tolerance:
        raise ExportError(
            f"{what}: the largest difference from the network is {found:.3g} of the output's scale, {tolerance:g} is "
            "allowed; nothing was written. Another format may serve: safetensors and python are exact"
        )
    return found


def _remedy(subject: Subject) -> str:
    return "Say static_batch=True (--static-batch) to export it for one batch size" if subject.dynamic else ""
