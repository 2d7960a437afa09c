"""Random crops and flips of a whole batch, on tensors.

A batch is augmented once and the same view goes to the teacher and to the student.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied: crops after `pad` pixels of zero padding, and mirror images where `flip`."""

    pad: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        if self.pad < 0:
            raise ValueError(f"Augmentation: pad is a number of pixels, at least 0; found {self.pad}")


def augment(images: Tensor, *, pad: int = 0, flip: bool = False, generator: torch.Generator | None = None) -> Tensor:
    """A varied copy of prepared images [B, C, H, W], of the same shape; each image is drawn for by itself.

    The crop's offset is uniform over the 2 * pad + 1 positions of either axis; a flip has probability 0.5. `generator`
    lives on the CPU, so that one seed gives the same views on every device.
    """
    batch, _, height, width = images.shape
    device = images.device
    out = images
    if pad:
        offsets = torch.randint(0, 2 * pad + 1, (2, batch), generator=generator).to(device)  # [2, B]
        rows = offsets[0, :, None] + torch.arange(height, device=device)  # [B, H]
        columns = offsets[1, :, None] + torch.arange(width, device=device)  # [B, W]
        padded = F.pad(images, (pad, pad, pad, pad))  # [B, C, H + 2 pad, W + 2 pad]
        which = torch.arange(batch, device=device)[:, None, None]
        # Advanced indices around the channel slice put the channels last: [B, H, W, C].
        out = padded[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if flip:
        mirrored = torch.rand(batch, generator=generator).to(device) < 0.5  # [B]
        out = torch.where(mirrored[:, None, None, None], out.flip(3), out)
    return out.contiguous()
