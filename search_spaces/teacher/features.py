"""The observation rows of a teacher's layers; the columns are defined in `search_spaces.base.FEATURES`."""

from __future__ import annotations

import numpy as np

from search_spaces.base import FEATURES, Floats, one_hot_kind
from search_spaces.teacher.analysis import Layer, Reading
from search_spaces.teacher.costs import CostTable
from search_spaces.teacher.operations import base_name
from search_spaces.teacher.removal import Shape

COLUMN = {name: i for i, name in enumerate(FEATURES)}


def static_rows(reading: Reading, layers: tuple[Layer, ...]) -> Floats:
    """What does not change from draft to draft, [N, F]: type, kernel, stride, padding, place, skips."""
    starts = {branch.split for branch in reading.branches}
    ends = {i for n in reading.nodes if n.op == "binary" and base_name(n.target) == "add" for i in n.inputs}
    hosts = {branch.weights[-1] if branch.passes else branch.host for branch in reading.branches}
    rows = np.zeros((len(layers), len(FEATURES)), dtype=np.float32)
    for i, layer in enumerate(layers):
        node = reading.nodes[layer.nodes[0]]
        values = {
            **one_hot_kind(layer.kind),
            "kernel": min(layer.kernel, 8) / 8,
            "stride": min(layer.stride, 4) / 4,
            "padding": min(layer.padding, 4) / 4,
            "spatial": layer.height,
            "skip_start": float(any(source in starts for source in node.inputs)),
            "skip_end": float(layer.name in hosts or bool(ends & set(layer.nodes))),
            "position": i / len(layers),
            "decision": 1.0,
        }
        for name, value in values.items():
            rows[i, COLUMN[name]] = value
    return rows


def size_columns(reading: Reading, layers: tuple[Layer, ...], shape: Shape, table: CostTable) -> Floats:
    """Widths and costs of the layers in a student, [N, 4]: width in, width out, parameter share, MAC share."""
    widest = max((layer.width_out for layer in reading.layers if layer.name in reading.widths), default=1)
    kept = np.array(shape.kept)
    parameters, macs = table.by_layer(kept, shape.kernels)
    sizes = [
        *(wide / widest for wide in table.passing(kept)),
        parameters / max(1, reading.parameters),
        macs / max(1, reading.macs),
    ]
    columns: Floats = np.minimum(1.0, np.stack(sizes, axis=1)).astype(np.float32)
    return columns if len(layers) == len(reading.layers) else columns[[table.place[layer.name] for layer in layers]]


SIZE_COLUMNS = [COLUMN[name] for name in ("width_in", "width_out", "parameter_share", "mac_share")]
