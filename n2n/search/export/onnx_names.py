"""Names in an ONNX file: outputs as the network calls them, the batch axis, and who wrote the file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from n2n.search.environment import package_version

LOGITS, BATCH = "logits", "batch"


def output_names(output: Any) -> list[str]:
    """A name for each tensor of an output, in order: "logits" for a tensor alone, the keys of a dict ("hidden_0" for
    the first entry of its "hidden"), "output_0", ... for a tuple or list. What is None has none."""
    if isinstance(output, Tensor):
        return [LOGITS]
    stem = [] if isinstance(output, Mapping) else ["output"]
    names: list[str] = []
    for path, leaf in pytree.tree_flatten_with_path(output)[0]:
        if leaf is not None:
            names.append(unused("_".join([*stem, *(_step(key) for key in path)]), names))
    return names


def unused(name: str, taken: Sequence[str] | set[str]) -> str:
    """`name`, with a number behind it where it is taken."""
    number, free = 2, name
    while free in taken:
        number, free = number + 1, f"{name}_{number}"
    return free


def name_outputs(model: Any, names: Sequence[str]) -> None:
    """Names the outputs of an onnx_ir model, in place; inputs and weights keep their names, other values give way."""
    import onnx_ir

    graph = model.graph
    for at, value in enumerate(graph.outputs):
        if value.is_graph_input() or value.is_initializer():  # it has a name that others know it by
            node = onnx_ir.node("Identity", [value])
            graph.append(node)
            graph.outputs[at] = node.outputs[0]
            graph.outputs[at].shape, graph.outputs[at].type = value.shape, value.type
    kept = {value.name for value in (*graph.inputs, *graph.initializers.values())}
    inner = [value for node in onnx_ir.traversal.RecursiveGraphIterator(graph) for value in node.outputs]
    final = [unused(name, kept) for name in names]
    taken = {*kept, *final, *(value.name for value in inner)}
    for value in inner:
        if value.name in final and not value.is_graph_output():
            value.name = unused(value.name, taken)
            taken.add(value.name)
    for value, name in zip(graph.outputs, final, strict=True):
        value.name = name


def name_batch(proto: Any) -> None:
    """Calls the batch axis of an ONNX model "batch" wherever a shape speaks of it, in place ("2*s77" too)."""
    graph = proto.graph
    inputs = [value.type.tensor_type.shape.dim for value in graph.input]
    symbols = {shape[0].dim_param for shape in inputs if shape and shape[0].dim_param}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            for symbol in symbols:
                if axis.dim_param:
                    axis.dim_param = re.sub(rf"\b{re.escape(symbol)}\b", BATCH, axis.dim_param)


def sign(proto: Any, facts: Mapping[str, str]) -> None:
    """Says in the file that N2N wrote it, and what is known of the network, in place."""
    import onnx

    proto.producer_name, proto.producer_version = "n2n", package_version("n2n") or ""
    onnx.helper.set_model_props(proto, dict(facts))


def _step(key: Any) -> str:
    return str(key.idx if isinstance(key, pytree.SequenceKey) else key.key)
