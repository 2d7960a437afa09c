"""How many bytes the parameters and buffers of a teacher take, and how that depends on widths."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import nn

from search_spaces.teacher.analysis import Layer, Reading

STATISTICS = ("running_mean", "running_var")
"""The buffers of a norm that have one entry for each channel; all others are kept as they are."""


@dataclass(frozen=True)
class Stored:
    """A layer whose bytes are not just those of its parameters.

    `fixed` bytes of buffers stay whatever the width is, `per_channel` come for each channel that leaves the layer;
    `extra` is how many bytes a parameter takes beyond the network's usual ones.
    """

    layer: Layer
    fixed: int
    per_channel: int
    extra: int

    def bytes(self, width: int, parameters: int) -> int:
        """Those beyond the usual ones, for so many channels and parameters."""
        return self.fixed + self.per_channel * width + self.extra * parameters


@dataclass(frozen=True)
class Sizes:
    """The bytes of a teacher's students: `usual` for each parameter, and what is particular to `stored` layers.

    `rest` are the bytes outside the layers that are not counted by `usual`; `teacher` is the teacher's total.
    """

    reading: Reading
    usual: int
    stored: tuple[Stored, ...]
    rest: int
    teacher: int

    @classmethod
    def of(cls, reading: Reading) -> Sizes:
        """Read from the teacher's tensors."""
        network = reading.network
        tensors = [*network.parameters(), *network.buffers()]
        total = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        counts = Counter(parameter.element_size() for parameter in network.parameters())
        usual = counts.most_common(1)[0][0] if counts else 4
        stored = tuple(
            one
            for layer in reading.layers
            if (one := _stored(layer, network.get_submodule(layer.name), usual)) != Stored(layer, 0, 0, 0)
        )
        own = sum(one.bytes(one.layer.width_out, one.layer.parameters) for one in stored)
        return cls(reading, usual, stored, total - usual * reading.parameters - own, total)


def _stored(layer: Layer, module: nn.Module, usual: int) -> Stored:
    buffers = dict(module.named_buffers(recurse=False))
    channels = [value for name, value in buffers.items() if name in STATISTICS]
    fixed = sum(_bytes(value) for name, value in buffers.items() if name not in STATISTICS)
    sizes = {parameter.element_size() for parameter in module.parameters(recurse=False)}
    return Stored(layer, fixed, sum(value.element_size() for value in channels), max(sizes, default=usual) - usual)


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
