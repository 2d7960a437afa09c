"""What students cost: one table for each set of removed layers, which any widths are then looked up in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from search_spaces.base import Cost
from search_spaces.teacher.analysis import CONNECTED, Layer, Reading
from search_spaces.teacher.channels import Channels
from search_spaces.teacher.flows import Ints
from search_spaces.teacher.removal import Shape, outermost
from search_spaces.teacher.sizes import Sizes


class CostTable:
    """The costs of all students of one removal: linear in the widths for norms, quadratic for convs.

    `place` is the index of each layer of the teacher, `outside` the costs of what is in no layer.
    """

    def __init__(self, reading: Reading, sizes: Sizes, shape: Shape) -> None:
        layers = reading.layers
        ends = {name: ends for name, ends in shape.plan.ends.items() if name not in shape.removed}
        groups = len(shape.plan.groups)
        self.place = {layer.name: i for i, layer in enumerate(layers)}
        self._taps = np.array([layer.taps for layer in layers])
        values, teacher = shape.plan.values, [_source(reading, layer) for layer in layers]
        self._read = _entries([values.get(source) for source, _ in teacher], groups)
        self._given = _entries([values.get(layer.nodes[0]) for layer in layers], groups)
        self._read_else = np.array([0 if values.get(source) else wide for source, wide in teacher])
        self._given_else = np.array([0 if values.get(layer.nodes[0]) else layer.width_out for layer in layers])
        self._incoming = _entries([ends[one.name].incoming if one.name in ends else None for one in layers], groups)
        self._outgoing = _entries([ends[one.name].outgoing if one.name in ends else None for one in layers], groups)
        connected = np.array([layer.kind in CONNECTED and layer.name in ends for layer in layers], dtype=bool)
        self._connected = connected.astype(np.int64)
        self._depthwise = np.array([layer.kind == "depthwise_conv" for layer in layers], dtype=bool)
        self._groups = np.array([layer.groups for layer in layers])
        self._bias = np.array([int(layer.bias) for layer in layers]) * self._connected
        self._positions = np.array([layer.positions for layer in layers])
        # Norms and whatever else has a width of its own: so many parameters for each of so many entries.
        scaled = [layer.name in ends and not one for layer, one in zip(layers, connected, strict=True)]
        self._scaled = np.array([layer.parameters * one for layer, one in zip(layers, scaled, strict=True)])
        self._entries = np.array([reading.entries(layer) for layer in layers])
        loose = [layer.name not in ends and layer.name not in shape.removed for layer in layers]
        self._loose = np.array([layer.parameters * one for layer, one in zip(layers, loose, strict=True)])
        self._loose_macs = np.array([layer.macs * one for layer, one in zip(layers, loose, strict=True)])
        gone = outermost(shape.emptied)
        outside = reading.parameters - sum(layer.parameters for layer in layers)
        outside -= sum(branch.parameters for branch in gone)
        products = [one for one in matrix_products(reading) if values.get(one.source) is not None]
        self._products = np.array([one.macs for one in products], dtype=np.int64)
        self._product_entries = np.array([one.entries for one in products], dtype=np.int64)
        self._product_widths = _entries([values[one.source] for one in products], groups)
        inside = frozenset[int]().union(*(branch.nodes for branch in gone))
        macs = reading.other_macs - sum(branch.macs for branch in gone) - int(self._products.sum())
        # What a branch takes along holds its products already.
        macs += sum(one.macs for one in products if one.node in inside)
        self._products *= np.array([one.node not in inside for one in products], dtype=np.int64)
        self.outside = Cost(outside, macs, sizes.rest + sizes.usual * outside)
        self._usual = sizes.usual
        stored = [(self.place[one.layer.name], one) for one in sizes.stored if one.layer.name not in shape.removed]
        self._stored_at = np.array([at for at, _ in stored], dtype=np.int64)
        self._fixed = np.array([one.fixed for _, one in stored], dtype=np.int64)
        self._per_channel = np.array([one.per_channel for _, one in stored], dtype=np.int64)
        self._extra = np.array([one.extra for _, one in stored], dtype=np.int64)
        self._widths = np.array([layer.width_out for layer in layers])
        self._has_ends = np.array([layer.name in ends for layer in layers], dtype=bool)

    def by_layer(self, kept: Ints, kernels: Mapping[str, int]) -> tuple[Ints, Ints]:
        """Parameters and MACs [L] of each layer where group g keeps `kept[g]` classes; 0 for removed ones."""
        taps = self._taps
        if kernels:
            taps = taps.copy()
            for name, kernel in kernels.items():
                taps[self.place[name]] = kernel**2
        wide_in, wide_out = self._incoming @ kept, self._outgoing @ kept
        weights = self._connected * wide_out * np.where(self._depthwise, 1, wide_in // self._groups) * taps
        scaled = self._scaled * wide_out // self._entries
        parameters: Ints = weights + self._bias * wide_out + scaled + self._loose
        macs: Ints = self._positions * weights + self._loose_macs
        return parameters, macs

    def passing(self, kept: Ints) -> tuple[Ints, Ints]:
        """How many channels [L] come to and leave the place of each layer, removed or not."""
        return self._read @ kept + self._read_else, self._given @ kept + self._given_else

    def bytes_by_layer(self, kept: Ints, parameters: Ints) -> Ints:
        """Bytes [L] of each layer that has so many parameters [L], its buffers included."""
        wide = np.where(self._has_ends, self._outgoing @ kept, self._widths)
        found: Ints = self._usual * parameters
        found[self._stored_at] += self._fixed + self._per_channel * wide[self._stored_at]
        found[self._stored_at] += self._extra * parameters[self._stored_at]
        return found

    def cost(self, kept: Ints, kernels: Mapping[str, int]) -> Cost:
        """Parameters, MACs and bytes of a whole student."""
        parameters, macs = self.by_layer(kept, kernels)
        return self.total(kept, parameters, macs, self.bytes_by_layer(kept, parameters))

    def total(self, kept: Ints, parameters: Ints, macs: Ints, size: Ints) -> Cost:
        """The costs of layers with those of what is outside of them."""
        outside = self.outside
        products = self._products * (self._product_widths @ kept) // self._product_entries
        return Cost(
            int(parameters.sum()) + outside.parameters,
            int(macs.sum()) + int(products.sum()) + outside.macs,
            int(size.sum()) + outside.bytes,
        )


@dataclass(frozen=True)
class Product:
    """A matrix product outside of layers: its `macs` for one example grow with the channels of node `source`, of which
    the teacher has `entries`."""

    node: int
    source: int
    entries: int
    macs: int


def matrix_products(reading: Reading) -> list[Product]:
    """The products whose MACs follow the widths: matrix products and attention over channels that are known."""
    batch = next((node.shape[0] for node in reading.nodes if node.op == "input" and node.shape), 1)
    found = []
    for node in reading.nodes:
        if node.op == "matmul" and all(i >= 0 for i in node.operands[:2]):
            summed = reading.nodes[node.operands[0]].shape[-1]
            found.append((node, node.operands[:2], prod(node.shape) * summed // batch))
        elif node.op == "attention" and all(i >= 0 for i in node.operands[:3]):
            query, key, value = (reading.nodes[i].shape for i in node.operands[:3])
            pairs = prod(query[:-1]) * key[-2] // batch
            found.append((node, node.operands[:1], pairs * query[-1]))
            found.append((node, node.operands[2:3], pairs * value[-1]))
    products = []
    for node, operands, macs in found:
        source = next((i for i in operands if reading.full.values.get(i) is not None), -1)
        channels = reading.full.values.get(source)
        if channels is not None:
            products.append(Product(node.index, source, len(channels.classes), macs))
    return products


def _source(reading: Reading, layer: Layer) -> tuple[int, int]:
    """The node that a layer reads, and how many channels the teacher's gives."""
    inputs = reading.nodes[layer.nodes[0]].inputs
    return (inputs[0] if inputs else -1), layer.width_in


def _entries(channels: list[Channels | None], groups: int) -> Ints:
    """How many entries [L, G] a kept class of each group brings to each layer."""
    each = np.zeros((len(channels), groups), dtype=np.int64)
    for row, found in enumerate(channels):
        for group, many in found.counts if found is not None else ():
            each[row, group] = many
    return each
