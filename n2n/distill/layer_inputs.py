"""What a layer's weights see at some of its output positions: the rows of its least-squares system."""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

Weighted = nn.Linear | _ConvNd


def groups_of(layer: Weighted) -> int:
    """How many separate blocks of weights a layer has."""
    return layer.groups if isinstance(layer, _ConvNd) else 1


def grouped_weight(layer: Weighted) -> Tensor:
    """The weights as [G, m, d]: m outputs and d inputs (channels times taps) for each of G groups."""
    weight = layer.weight.detach()
    return weight.reshape(groups_of(layer), weight.shape[0] // groups_of(layer), -1)


class LayerInputs:
    """The inputs of a linear layer or a convolution for n images, to be read at some output positions.

    Attributes:
        positions: output positions of each image; windows that lie beside the images count as positions.
    """

    def __init__(self, layer: Weighted, value: Tensor, images: int) -> None:
        self._layer, self._images = layer, images
        if isinstance(layer, _ConvNd):
            self._value, self._padding = _padded(layer, value)
            sizes = zip(
                self._value.shape[2:], self._padding, layer.kernel_size, layer.stride, layer.dilation, strict=True
            )
            self._outputs = tuple(
                (size + sum(pads) - dilation * (kernel - 1) - 1) // stride + 1
                for size, pads, kernel, stride, dilation in sizes
            )
            self.positions = len(value) // images * prod(self._outputs)
        else:
            self._value, self._outputs = value.reshape(images, -1, value.shape[-1]), ()
            self.positions = self._value.shape[1]

    def rows(self, places: Tensor, start: int, stop: int) -> Tensor:
        """Inputs [G, s, d] at the places [n, p] (indices of output positions) of the images `start` to `stop`."""
        chosen = places[start:stop]  # [b, p]
        if not isinstance(self._layer, _ConvNd):
            at = torch.arange(start, stop, device=places.device).unsqueeze(1)
            return self._value[at, chosen].flatten(0, 1).unsqueeze(0)
        windows = len(self._value) // self._images
        if windows == 1:
            value = self._value[start:stop].flatten(2)  # [b, C, L]
        else:
            value = self._value[start * windows : stop * windows].flatten(2)
            value = value.reshape(stop - start, windows, *value.shape[1:]).movedim(1, 2).flatten(2)
        at, inside = self._taps(chosen)  # [b, p * taps]
        taken = value.gather(2, at.unsqueeze(1).expand(-1, value.shape[1], -1))  # [b, C, p * taps]
        if inside is not None:
            taken = taken * inside.unsqueeze(1)
        groups, many = groups_of(self._layer), chosen.shape[1]
        taken = taken.reshape(stop - start, groups, value.shape[1] // groups, many, -1)
        return taken.permute(1, 0, 3, 2, 4).reshape(groups, (stop - start) * many, -1)

    def _taps(self, chosen: Tensor) -> tuple[Tensor, Tensor | None]:
        """Where the taps of the chosen outputs [b, p] lie in an image, and which do not lie in the zeros around it."""
        layer = self._layer
        assert isinstance(layer, _ConvNd)
        sizes, left = self._value.shape[2:], chosen
        at = torch.zeros(*chosen.shape, 1, dtype=torch.long, device=chosen.device)  # [b, p, taps]
        inside = torch.ones_like(at, dtype=torch.bool)
        stride = 1
        for axis in range(len(sizes) - 1, -1, -1):
            corner = left % self._outputs[axis] * layer.stride[axis] - self._padding[axis][0]
            left = left // self._outputs[axis]
            steps = torch.arange(layer.kernel_size[axis], device=chosen.device) * layer.dilation[axis]
            place = corner.unsqueeze(2) + steps  # [b, p, kernel]
            valid = (place >= 0) & (place < sizes[axis])
            place = place.clamp(0, sizes[axis] - 1) * stride
            at = (place.unsqueeze(3) + at.unsqueeze(2)).flatten(2)
            inside = (valid.unsqueeze(3) & inside.unsqueeze(2)).flatten(2)
            stride *= sizes[axis]
        at = at + left.unsqueeze(2) * stride  # the window
        return at.flatten(1), inside.flatten(1) if any(sum(pads) for pads in self._padding) else None


def _padded(layer: _ConvNd, value: Tensor) -> tuple[Tensor, tuple[tuple[int, int], ...]]:
    """A conv's input, padded already where not with zeros, and how many zeros come before and after each axis."""
    reversed_pairs = layer._reversed_padding_repeated_twice  # last axis first
    pairs = tuple(zip(reversed_pairs[::2], reversed_pairs[1::2], strict=True))[::-1]
    if layer.padding_mode == "zeros":
        return value, pairs
    return F.pad(value, reversed_pairs, mode=layer.padding_mode), tuple((0, 0) for _ in pairs)
