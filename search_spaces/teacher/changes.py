"""A student against its teacher, layer by layer."""

from __future__ import annotations

from search_spaces.base import LayerChange
from search_spaces.teacher.analysis import Layer, Reading
from search_spaces.teacher.removal import Shape, layer_cost


def changes(reading: Reading, shape: Shape) -> tuple[LayerChange, ...]:
    """What became of each layer of a teacher, in the order in which they run."""
    return tuple(_change(reading, layer, shape) for layer in reading.layers)


def _change(reading: Reading, layer: Layer, shape: Shape) -> LayerChange:
    gone = layer.name in shape.removed
    wide_in, wide_out, kernel = (0, 0, 0) if gone else (layer.width_in, layer.width_out, layer.kernel)
    if not gone and layer.name in shape.plan.ends:
        wide_in, wide_out = shape.width_in(layer.name), shape.width_out(layer.name)
        kernel = shape.kernels.get(layer.name, kernel)
    return LayerChange(
        name=layer.name,
        kind=layer.kind,
        removed=gone,
        width_in=(layer.width_in, wide_in),
        width_out=(layer.width_out, wide_out),
        kernel=(layer.kernel, kernel),
        parameters=(layer.parameters, layer_cost(reading, layer, shape).parameters),
    )
