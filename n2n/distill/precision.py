"""Which number format and memory layout training uses on a device: bf16 and channels_last where they pay."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import nn

PRECISIONS = ("auto", "fp32", "bf16")
_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}


@dataclass(frozen=True)
class Precision:
    """What `resolve` decided: autocast to bf16 or not, channels_last or not, and where."""

    device_type: str
    bf16: bool
    channels_last: bool

    @property
    def name(self) -> str:
        """The number format: "bf16" or "fp32"."""
        return "bf16" if self.bf16 else "fp32"

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The context in which forward passes run."""
        if not self.bf16:
            return contextlib.nullcontext()
        return torch.autocast(self.device_type, dtype=torch.bfloat16)

    def place(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B, C, H, W] in the layout that the network wants."""
        if self.channels_last and images.dim() == 4:
            return images.contiguous(memory_format=torch.channels_last)
        # One channel in contiguous memory may still carry the strides of channels_last, and convolutions then follow
        # that layout, where odd widths corrupted torch's heap; through one axis the strides are those of the shape.
        return images.contiguous().flatten().view(images.shape)


Wish = str | Precision
"""How to train, before a network is known: "auto", "fp32", "bf16", or what was decided for another network."""


@cache
def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bf16 in hardware (AVX512-bf16 or AMX); False where it cannot be found out."""
    source = Path("/proc/cpuinfo")
    if not source.exists():
        return False
    for line in source.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("flags"):
            return bool(_CPU_FLAGS & set(line.split()))
    return False


def native_bf16(device: torch.device | str) -> bool:
    """Whether the hardware of a device multiplies bf16 itself."""
    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return kind == "cpu" and cpu_has_bf16()


def resolve(
    precision: Wish, network: nn.Module, device: torch.device | str, *, native: bool | None = None
) -> Precision:
    """What a wish means for a network on a device.

    A `Precision` that was decided for another network holds for this one, too, but for channels_last where this one
    must not have it.

    Args:
        precision: "auto", "fp32", "bf16", or a decision.
        native: whether the device multiplies bf16 itself; None finds out.

    Raises:
        ValueError: the wish is a word other than the three.
    """
    kind = torch.device(device).type
    able = native_bf16(device) if native is None else native
    if isinstance(precision, Precision):
        return Precision(kind, precision.bf16, precision.channels_last and (kind == "cuda" or _even_widths(network)))
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
    bf16 = precision == "bf16" or (precision == "auto" and able)
    return Precision(kind, bf16, (kind == "cuda" and bf16 and able) or _even_widths(network))


def _even_widths(network: nn.Module) -> bool:
    # On a processor channels_last gains a fifth on convolutions of full vector width. On others (6, 8, 11, 22 channels)
    # torch 2.13 corrupts its heap in training steps on several threads, in float32 and in bf16, so those keep the
    # default layout.
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    return bool(convs) and all(conv.out_channels % 16 == 0 and conv.groups == 1 for conv in convs)
