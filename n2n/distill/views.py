"""What one pass over training images shows."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from n2n.data.base import Split


@dataclass(frozen=True)
class View:
    """Training images as one pass shows them, with the teacher's outputs on exactly these images.

    Attributes:
        images: raw images [n, C, H, W], uint8 or float32, augmented where the view is.
        labels: [n] int64.
        logits: [n, K] float32, or None where no teacher looked at them.
        features: the teacher's maps of the places asked for, [n, C, *spatial] float32 each, or None where they are not
            kept.
    """

    images: Tensor
    labels: Tensor
    logits: Tensor | None
    features: tuple[Tensor, ...] | None = None


def select(split: Split, subset: Tensor | None) -> View:
    """The images and labels of a split, or of a subset [m] of its indices, without outputs."""
    if subset is None:
        return View(split.images, split.labels, None)
    return View(split.images[subset], split.labels[subset], None)
