"""Reading a teacher: its layers, its residual branches, and why a layer may not be removed."""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import networkx as nx
from torch import Tensor, nn

from search_spaces.base import SpaceError
from search_spaces.teacher.branches import Branch, find_branches, graph_of
from search_spaces.teacher.capture import CaptureTimeoutError, ExampleInputs, ForwardFn
from search_spaces.teacher.channels import Plan, plan
from search_spaces.teacher.macs import count_macs, dry_run
from search_spaces.teacher.operations import WEIGHTS
from search_spaces.teacher.outlines import outlines
from search_spaces.teacher.rules import known_widths
from search_spaces.teacher.trace import Node, trace

CONNECTED = frozenset({"conv", "depthwise_conv", "linear"})
"""Kinds of layers whose weights connect inputs with outputs."""
_ODD = "gives something else than one tensor"
_NORMS = {"batch_norm": "batch_norm", "group_norm": "other_norm", "layer_norm": "other_norm"}


@dataclass(frozen=True)
class Layer:
    """One leaf module of the teacher.

    `kind` is one of `base.KINDS`; `kernel`, `stride`, `padding`, `dilation` are those of its first spatial axis (0
    where it has none); `taps` is the product of the kernel sizes; `positions` is the number of output positions of one
    example over all calls (1 for flat features; input positions for a transposed conv); `height` its output height (or
    length) over the network's input's; `line` the source line that called it; `reason` why it cannot be removed (empty:
    it can). `resizable` says that it has an odd square kernel, padded with zeros so that a smaller one gives the same
    positions.
    """

    name: str
    kind: str
    nodes: tuple[int, ...]
    kernel: int
    stride: int
    padding: int
    dilation: int
    groups: int
    taps: int
    bias: bool
    width_in: int
    width_out: int
    positions: int
    height: float
    parameters: int
    line: str
    reason: str
    resizable: bool

    def because(self, reason: str) -> str:
        """A reason with the source line that called the layer, where it is known and not in the reason already."""
        return f"{reason} ({self.line})" if reason and self.line and self.line not in reason else reason

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one example."""
        if self.kind not in CONNECTED:
            return 0
        return self.positions * self.width_out * (self.width_in // self.groups) * self.taps


@dataclass(frozen=True)
class Reading:
    """All that is known of a teacher: `network` is a private copy of it in eval mode, never to be edited.

    `parameters` and `macs` are the teacher's totals for one example; `other_macs` those outside its layers.
    `distrusted` are nodes whose sizes do not follow the channels, as trying showed, with the reason. `calls` are the
    nodes of each layer; `example` is what the network was read with (two examples, as a rule), `output_shapes` what it
    gave; `needs_values` says that it cannot run on tensors without values.
    """

    network: nn.Module
    nodes: tuple[Node, ...]
    layers: tuple[Layer, ...]
    branches: tuple[Branch, ...]
    fingerprint: str
    parameters: int
    macs: int
    widths: dict[str, int]
    full: Plan
    distrusted: dict[int, str]
    calls: dict[str, tuple[int, ...]]
    example: ExampleInputs
    forward_fn: ForwardFn | None
    output_shapes: tuple[tuple[int, ...], ...]
    needs_values: bool

    def entries(self, layer: Layer) -> int:
        """How many channels leave a layer; of a norm whose channels nobody follows, how many it scales."""
        ends = self.full.ends.get(layer.name)
        if ends is not None:
            return len(ends.outgoing.classes)
        weight = getattr(self.network.get_submodule(layer.name), "weight", None)
        return layer.width_out if layer.kind in CONNECTED or not isinstance(weight, Tensor) else weight.shape[0]

    @property
    def other_macs(self) -> int:
        """MACs of operations that belong to no layer, such as matrix products in the user's own code."""
        return self.macs - sum(layer.macs for layer in self.layers)


def analyse(
    network: nn.Module,
    example_inputs: ExampleInputs,
    *,
    forward_fn: ForwardFn | None = None,
    seconds: float = float("inf"),
) -> Reading:
    """What a teacher's graph says; `reading.read` then tries what it does not say for certain.

    Raises:
        SpaceError: it does not run on the example inputs, or its graph cannot be captured within `seconds`.
    """
    example = _few(example_inputs)
    try:
        nodes, own = trace(network, example, forward_fn, seconds=seconds)
    except SpaceError as error:
        if example is example_inputs or isinstance(error, CaptureTimeoutError):
            raise
        example = example_inputs  # the number of examples is fixed in the network's code
        nodes, own = trace(network, example, forward_fn, seconds=seconds)
    graph = graph_of(nodes)
    names = tuple(dict.fromkeys(node.layer for node in nodes if node.layer))
    batch = next((node.shape[0] for node in nodes if node.op == "input" and node.shape), 1)
    run = dry_run(own, example, forward_fn)
    layers = tuple(_layer(name, nodes, graph, own, batch) for name in names)
    layers = tuple(replace(one, reason=one.reason or _ODD) if one.name in run.odd else one for one in layers)
    widths = known_widths(nodes)
    structure = [[node.op, node.layer, node.inputs, node.shape[1:], node.detail] for node in nodes]
    kernels = [[layer.name, layer.kind, layer.kernel, layer.stride, layer.bias, layer.width_out] for layer in layers]
    digest = hashlib.sha256(json.dumps([structure, kernels]).encode()).hexdigest()[:16]
    return Reading(
        network=own,
        nodes=nodes,
        layers=layers,
        branches=_branches(nodes, graph, layers, own, (example, forward_fn), batch),
        fingerprint=digest,
        parameters=sum(parameter.numel() for parameter in own.parameters()),
        macs=count_macs(own, example, forward_fn) // batch,
        widths=widths,
        full=plan(nodes, widths),
        distrusted={},
        calls=_calls(nodes),
        example=example,
        forward_fn=forward_fn,
        output_shapes=run.shapes,
        needs_values=run.needs_values,
    )


def _few(example_inputs: ExampleInputs) -> ExampleInputs:
    """The first two examples of a batch: enough to see how a network is made."""
    values = (
        [example_inputs]
        if isinstance(example_inputs, Tensor)
        else list(example_inputs.values() if isinstance(example_inputs, Mapping) else example_inputs)
    )
    sizes = {len(value) for value in values if isinstance(value, Tensor) and value.ndim > 0}
    if not all(isinstance(value, Tensor) and value.ndim > 0 for value in values) or len(sizes) != 1 or sizes <= {1, 2}:
        return example_inputs
    if isinstance(example_inputs, Tensor):
        return example_inputs[:2]
    if isinstance(example_inputs, Mapping):
        return {name: value[:2] for name, value in example_inputs.items()}
    return tuple(value[:2] for value in example_inputs)


def _calls(nodes: tuple[Node, ...]) -> dict[str, tuple[int, ...]]:
    """The nodes of each layer."""
    calls: dict[str, list[int]] = {}
    for node in nodes:
        if node.layer:
            calls.setdefault(node.layer, []).append(node.index)
    return {layer: tuple(indices) for layer, indices in calls.items()}


def _branches(
    nodes: tuple[Node, ...],
    graph: nx.DiGraph,
    layers: tuple[Layer, ...],
    network: nn.Module,
    call: tuple[ExampleInputs, ForwardFn | None],
    batch: int,
) -> tuple[Branch, ...]:
    """The residual branches, where needed with composite modules that go as wholes."""
    found = find_branches(nodes, graph)
    if not any(branch.reason for branch in found):
        return found
    modules = outlines(network, *call)
    return tuple(
        replace(
            branch,
            parameters=sum(modules[name].parameters - _in(layers, name, "parameters") for name in branch.units),
            macs=sum(modules[name].macs // batch - _in(layers, name, "macs") for name in branch.units),
        )
        for branch in find_branches(nodes, graph, modules)
    )


def _in(layers: tuple[Layer, ...], module: str, quantity: str) -> int:
    """The sum of a quantity over a module's layers."""
    return sum(int(getattr(layer, quantity)) for layer in layers if layer.name.startswith(f"{module}."))


def ignored(reading: Reading, patterns: Sequence[str | type[nn.Module]]) -> frozenset[str]:
    """The layers that names, shell-style patterns or module types speak of; a module's name covers what is in it.

    Raises:
        SpaceError: one of them matches no layer.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        if isinstance(pattern, str):
            hits = {
                layer.name
                for layer in reading.layers
                if fnmatch.fnmatchcase(layer.name, pattern) or layer.name.startswith(f"{pattern}.")
            }
        else:
            hits = {n.name for n in reading.layers if isinstance(reading.network.get_submodule(n.name), pattern)}
        if not hits:
            some = ", ".join(layer.name for layer in reading.layers[:8])
            raise SpaceError(f"ignored_layers: {pattern!r} matches no layer; the layers are {some}, ...")
        chosen |= hits
    return frozenset(chosen)


def _layer(name: str, nodes: tuple[Node, ...], graph: nx.DiGraph, network: nn.Module, batch: int) -> Layer:
    calls = tuple(node for node in nodes if node.layer == name)
    node, module = calls[0], network.get_submodule(name)
    before = nodes[node.inputs[0]].shape if node.inputs else ()
    convolves = node.op in {"conv", "conv_transpose"}
    kind = _kind(node, module, before)
    kernels = _sizes(module, "kernel_size")
    axis = len(node.shape) - 1 if node.op in {"linear", "embedding"} or len(node.shape) < 2 else 1
    top = next((n.shape for n in nodes if n.op == "input"), ())
    image = len(node.shape) == len(top) and len(top) > 2 and axis == 1
    return Layer(
        name=name,
        kind=kind,
        nodes=tuple(call.index for call in calls),
        kernel=kernels[0] if kernels else 0,
        stride=next(iter(_sizes(module, "stride")), 0),
        padding=next(iter(_sizes(module, "padding")), 0),
        dilation=next(iter(_sizes(module, "dilation")), 1),
        groups=node.detail[0] if convolves else 1,
        taps=prod(kernels) if convolves else 1,
        bias=getattr(module, "bias", None) is not None,
        width_in=before[axis] if axis < len(before) else 1,
        width_out=node.shape[axis] if node.shape else 1,
        positions=sum(_positions(call, nodes, batch) for call in calls),
        height=min(1.0, node.shape[2] / top[2]) if image else 1.0,
        parameters=sum(parameter.numel() for parameter in module.parameters(recurse=False)),
        line=node.line,
        reason=_why_kept(calls, nodes, graph, before),
        resizable=node.op == "conv" and _resizable(module),
    )


def _positions(call: Node, nodes: tuple[Node, ...], batch: int) -> int:
    """At how many positions of one example a call applies its weights; windows of one may lie beside the examples."""
    shape = nodes[call.inputs[0]].shape if call.op == "conv_transpose" else call.shape
    spatial = shape[1:-1] if call.op == "linear" else shape[2:]
    return prod(spatial) * max(1, shape[0] // batch if shape else 1)


def _kind(node: Node, module: nn.Module, before: tuple[int, ...]) -> str:
    if node.op in {"conv", "conv_transpose"}:
        return "depthwise_conv" if node.detail[0] == before[1] > 1 else "conv"
    if node.op in _NORMS:
        return _NORMS[node.op] if not isinstance(module, nn.modules.instancenorm._InstanceNorm) else "other_norm"
    if node.op == "linear" or node.op == "pool":
        return node.op
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return "dropout"
    return "activation" if node.op in {"same", "vector"} else "other"


def _why_kept(calls: tuple[Node, ...], nodes: tuple[Node, ...], graph: nx.DiGraph, before: tuple[int, ...]) -> str:
    node = calls[0]
    if not node.solo:
        return "does more in its forward than one operation"
    if node.op == "opaque":
        return f"{node.target} at {node.line} is not understood, or its weights are used elsewhere too"
    if len(node.inputs) != 1 or (node.op in WEIGHTS and len(calls) > 1):
        return "has several inputs or is called more than once"
    for call in calls:
        source = nodes[call.inputs[0]].shape
        axis = len(source) - 1 if call.op == "linear" else 1
        if len(source) != len(call.shape) or any(
            a != b for i, (a, b) in enumerate(zip(source, call.shape, strict=True)) if i != axis
        ):
            return f"changes the size of its input, {list(source[1:])} to {list(call.shape[1:])}"
    if node.op in WEIGHTS:
        if not any(nodes[i].op in WEIGHTS for i in nx.ancestors(graph, node.index) if i >= 0):
            return "is the first layer"
        if not any(nodes[i].op in WEIGHTS for i in nx.descendants(graph, node.index)):
            return "is the classifier"
    return ""


def _resizable(module: nn.Module) -> bool:
    if not isinstance(module, nn.Conv2d) or module.padding_mode != "zeros" or isinstance(module.padding, str):
        return False
    kernel, dilation = module.kernel_size[0], module.dilation[0]
    square = set(module.kernel_size) == {kernel} and set(module.dilation) == {dilation}
    return square and kernel > 1 and kernel % 2 == 1 and set(module.padding) == {dilation * (kernel // 2)}


def _sizes(module: nn.Module, name: str) -> tuple[int, ...]:
    value = getattr(module, name, ())
    if isinstance(value, int):
        return (value,)
    return tuple(value) if isinstance(value, tuple) and all(isinstance(item, int) for item in value) else ()
