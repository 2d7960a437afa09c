"""What each operation does to channels: one rule for each name in `operations.py`.

A rule takes the channels of its operands (None: not known, or there are none) and gives those of its result. Whatever
it cannot follow it holds: those channels keep the teacher's width, with the source line as the reason.
"""

from __future__ import annotations

from collections.abc import Callable

from search_spaces.teacher.flows import Flow, Mapped, WidthConflict, joined, repeated
from search_spaces.teacher.reshape import reshaped
from search_spaces.teacher.trace import Node
from search_spaces.teacher.walk import Walk

Flows = list[Flow | None]


def opaque(walk: Walk, node: Node, flows: Flows) -> Flow | None:
    """Not understood: everything that reaches it stays as it is."""
    place = f"{node.target} at {node.line or 'an unknown line'}"
    met = f"meets {' and '.join(node.fixed)}, whose shape is fixed, in {place}" if node.fixed else ""
    if node.op == "binary" and not met:
        met = f"meets channels that are not followed in {place}"
    reason = walk.distrusted.get(node.index) or met or f"reaches {place}"
    for flow, index in zip(flows, node.operands, strict=True):
        walk.hold(flow, index, node, reason)
    return None


def _input(walk: Walk, node: Node, flows: Flows) -> Flow | None:
    if len(node.shape) < 2:
        return None
    # Images carry channels on axis 1, flat features and tokens on the last axis.
    axis = 1 if len(node.shape) != 3 else 2
    return walk.new(axis, node.shape[axis], f"input{node.index}", "is the network's input")


def _output(walk: Walk, node: Node, flows: Flows) -> Flow | None:
    for flow, index in zip(flows, node.operands, strict=True):
        walk.hold(flow, index, node, "is the network's output")
    return None


def _incoming(walk: Walk, node: Node, flow: Flow | None, axis: int) -> Flow:
    """The input of a layer with weights; one of unknown origin has a frozen width of its own."""
    if flow is not None and flow.axis == axis:
        return flow
    source = node.operands[0]
    walk.hold(flow, source, node, f"changes its axis before {node.layer}")
    name = f"before {node.layer}"
    return walk.new(axis, walk.shape(source)[axis], name, "comes from an operation that is not understood")


def _ends(walk: Walk, node: Node, role: str, incoming: Flow, outgoing: Flow) -> Flow:
    """Notes a layer's two ends; a layer that is called again has the same ones each time."""
    if node.layer in walk.ends:
        before, after = walk.ends[node.layer]
        walk.tie(before.atoms, incoming.atoms)
        walk.tie(after.atoms, outgoing.atoms)
        return outgoing
    walk.ends[node.layer] = (incoming, outgoing)
    walk.members.append((node.layer, role, outgoing))
    return outgoing


def _conv(walk: Walk, node: Node, flows: Flows) -> Flow | None:
    groups, out = node.detail[0], walk.widths[node.layer]
    incoming = _incoming(walk, node, flows[0], 1)
    full = walk.shape(node.operands[0])[1]
    if groups > 1 and groups == full:  # depthwise: the output's channels are the input's
        if node.op == "conv_transpose" and out != full:
            return opaque(walk, node, [incoming])
        return _ends(walk, node, "scale", incoming, repeated(incoming, 1, out // full))
    outgoing = walk.new(1, out, node.layer)
    if groups > 1:
        if len(incoming) != full:
            raise WidthConflict(f"{node.layer} divides {full} channels into {groups} groups")
        walk.divide(incoming, groups)
        walk.divide(outgoing, groups)
    return _ends(walk, node, "producer", incoming, outgoing)


def _linear(walk: Walk, node: Node, flows: Flows) -> Flow | None:
    axis = len(node.shape) - 1
    incoming = _incoming(walk, node, flows[0], axis)
    return _ends(walk, node, "producer", incoming, walk.new(axis, walk.widths[node.layer], node.layer))


def _embedding(walk: Walk, node: Node, flows: Flows) -> Flow | None:
    opaque(walk, node, flows)  # indices carry no channels
    outgoing = walk.new(len(node.shape) - 1, node.shape[-1], node.layer)
    return _ends(walk, node, "producer", outgoing, outgoing)


def _scaled(walk: Walk, node: Node, flows: Flows) -> Flow | None:
    """Norms and slopes with one number for each channel on axis 1."""
    flow = flows[0]
    if flow is None:
        return None
    if flow.axis != 1 or not node.layer:
        return opaque(walk, node, flows)
    if node.op == "group_norm":
        if not walk.whole(flow, node.operands[0]):
            raise WidthConflict(f"{node.layer} divides {node.shape[1]} channels into {node.detail[0]} groups")
        walk.divide(flow, node.detail[0])
    return _ends(walk, node, "scale", flow, flow)


def _layer_norm(walk: Walk, node: Node, flows: Flows) -> Flow | None:
    flow = flows[0]
    if flow is None:
        return None
    if flow.axis < len(node.shape) - node.detail[0]:
        return flow  # the channels are not among the normalised axes
    return _ends(walk, node, "scale", flow, flow) if node.layer else opaque(walk, node, flows)


def _same(walk: Walk, node: Node, flows: Flows) -> Flow | None:
    return flows[0]


def _pool(walk: Walk, node: Node, flows: Flows) -> Flow | None:
    return flows[0] if flows[0] is None or flows[0].axis == 1 else opaque(walk, node, flows)


def _binary(walk: Walk, node: Node, flows: Flows) -> Flow | None:
    rank, sizes = len(node.shape), [walk.shape(i) if i >= 0 else node.detail for i in node.operands]
    offsets = [None if f is None else f.axis - len(size) for f, size in zip(flows, sizes, strict=True)]
    known = {offset for offset in offsets if offset is not None}
    if not known:
        return None
    if len(known) == 2 or len(flows) != 2:
        return opaque(walk, node, flows)
    offset = known.pop()
    wide = [size[offset] if len(size) >= -offset else 1 for size in sizes]
    first, second = flows
    if first is not None and second is not None and wide[0] == wide[1]:
        walk.tie(first.atoms, second.atoms)
        # Where both sides were brought to another width, the shorter chain of removed layers stands for both.
        changed = len(first) != wide[0]
        return Flow(rank + offset, first.atoms, min(first, second, key=lambda f: f.depth).made if changed else None)
    lone = [i for i, flow in enumerate(flows) if flow is not None and wide[1 - i] == 1]
    if len(lone) == 1 and (found := flows[lone[0]]) is not None:
        # The other one is spread over all channels; if it has a channel of its own, that stays.
        walk.hold(flows[1 - lone[0]], node.operands[1 - lone[0]], node, "is one channel, spread over all")
        return found.on(rank + offset)
    return opaque(walk, node, flows)


def _cat(walk: Walk, node: Node, flows: Flows) -> Flow | None:
    axis, found = node.detail[0], [flow for flow in flows if flow is not None]
    if not found:
        return None
    if any(flow.axis == axis for flow in found):
        if any(flow.axis != axis for flow in found):
            return opaque(walk, node, flows)
        # Whatever is not known keeps its width, so that its place among the others is known.
        all_of = [
            walk.new(axis, size, f"input of {node.target} at {node.line}", "comes from where it is not followed")
            if flow is None
            else flow
            for flow, size in zip(flows, _sizes(walk, node, axis), strict=True)
        ]
        return joined(all_of, axis)
    if len(found) < len(flows) or len({flow.axis for flow in found}) > 1:
        return opaque(walk, node, flows)
    for flow in found[1:]:
        walk.tie(found[0].atoms, flow.atoms)
    return Flow(found[0].axis, found[0].atoms, min(found, key=lambda f: f.depth).made)


def _sizes(walk: Walk, node: Node, axis: int) -> list[int]:
    """How many entries each operand of a join brings; the one parameter among them, if any, brings the rest."""
    known = [walk.shape(i)[axis] if i >= 0 else -1 for i in node.operands]
    if known.count(-1) > 1:
        raise WidthConflict(f"{node.target} at {node.line} joins several parameters")
    rest = node.shape[axis] - sum(size for size in known if size >= 0)
    return [rest if size < 0 else size for size in known]


def _split(walk: Walk, node: Node, flows: Flows) -> Flow | None:
    """Equal parts shrink alike; the parts themselves are taken by the items."""
    flow, axis, sizes = flows[0], node.detail[0], node.detail[1:]
    if flow is None or flow.axis != axis or len(sizes) == 1:
        return flow
    if len(set(sizes)) > 1:
        return opaque(walk, node, flows)
    return _equal_parts(walk, node, flow, len(sizes))


def _equal_parts(walk: Walk, node: Node, flow: Flow, parts: int) -> Flow:
    if not walk.whole(flow, node.operands[0]):
        raise WidthConflict(f"{node.target} at {node.line} divides {len(flow)} channels into {parts}")
    walk.tie_rows(flow.atoms.reshape(parts, -1))
    return walk.suspect(node, Flow(flow.axis, flow.atoms))


def _item(walk: Walk, node: Node, flows: Flows) -> Flow | None:
    flow, source = flows[0], walk.nodes[node.operands[0]]
    if flow is None or source.op != "split":
        return opaque(walk, node, flows) if source.op != "split" else None
    axis, sizes = source.detail[0], source.detail[1:]
    if flow.axis != axis or len(sizes) == 1:
        return flow
    start = sum(sizes[: node.detail[0]])
    return Flow(axis, flow.atoms[start : start + sizes[node.detail[0]]])


def _slice(walk: Walk, node: Node, flows: Flows) -> Flow | None:
    """All of an axis, another axis, or one of several equal parts."""
    flow, (axis, start, stop) = flows[0], node.detail
    if flow is None or flow.axis != axis:
        return flow
    full, size = walk.shape(node.operands[0])[axis], stop - start
    if size == full:
        return flow
    if size <= 0 or full % size or start % size:
        return opaque(walk, node, flows)
    return Flow(axis, _equal_parts(walk, node, flow, full // size).atoms[start:stop])


def _view(walk: Walk, node: Node, flows: Flows) -> Flow | None:
    flow, (inferred, trusted) = flows[0], node.detail
    if flow is None:
        return None
    found = reshaped(walk, flow, walk.shape(node.operands[0]), node.shape, inferred)
    if found is None:
        return opaque(walk, node, flows)
    after, certain = found
    return after if certain or trusted else walk.suspect(node, after)


def _expand(walk: Walk, node: Node, flows: Flows) -> Flow | None:
    flow = flows[0]
    if flow is None:
        return opaque(walk, node, flows)
    axis = flow.axis + len(node.shape) - len(walk.shape(node.operands[0]))
    if node.shape[axis] != walk.shape(node.operands[0])[flow.axis]:
        return opaque(walk, node, flows)
    other = flows[1] if len(flows) > 1 else None
    if other is not None and other.axis == axis and node.shape[axis] == walk.shape(node.operands[1])[axis]:
        walk.tie(flow.atoms, other.atoms)
        return flow.on(axis)
    if len(flows) > 1:
        return opaque(walk, node, flows)
    return walk.suspect(node, flow.on(axis))


def _reduce(walk: Walk, node: Node, flows: Flows) -> Flow | None:
    flow, keeps, axes = flows[0], node.detail[0], node.detail[1:]
    if flow is None or flow.axis in axes:
        return opaque(walk, node, flows)
    return flow.on(flow.axis - (0 if keeps else sum(axis < flow.axis for axis in axes)))


def _softmax(walk: Walk, node: Node, flows: Flows) -> Flow | None:
    return opaque(walk, node, flows) if flows[0] is not None and flows[0].axis == node.detail[0] else flows[0]


def _permute(walk: Walk, node: Node, flows: Flows) -> Flow | None:
    return None if flows[0] is None else flows[0].on(node.detail.index(flows[0].axis))


def _select(walk: Walk, node: Node, flows: Flows) -> Flow | None:
    flow, axis = flows[0], node.detail[0]
    if flow is None or flow.axis == axis:
        return opaque(walk, node, flows)
    return flow.on(flow.axis - (axis < flow.axis))


def _pad(walk: Walk, node: Node, flows: Flows) -> Flow | None:
    return opaque(walk, node, flows) if flows[0] is not None and flows[0].axis in node.detail else flows[0]


def _matmul(walk: Walk, node: Node, flows: Flows) -> Flow | None:
    """[..., M, K] times [..., K, N]: channels may be summed over, stand in front, or be rows or columns."""
    if len(flows) != 2 or any(i < 0 for i in node.operands):
        return opaque(walk, node, flows)
    shapes, rank = [walk.shape(i) for i in node.operands], len(node.shape)
    if len(shapes[0]) != rank or len(shapes[1]) != rank or rank < 2:
        return opaque(walk, node, flows)
    first, second = flows
    if first is None and second is None:
        return None
    if (first is not None and first.axis == rank - 1) or (second is not None and second.axis == rank - 2):
        # Channels are summed over, so that both sides must have the same ones.
        if first is None or second is None or first.axis != rank - 1 or second.axis != rank - 2:
            return opaque(walk, node, flows)
        walk.tie(first.atoms, second.atoms)
        return None
    if first is not None and second is not None:
        if first.axis != second.axis or first.axis >= rank - 2:
            return opaque(walk, node, flows)
        walk.tie(first.atoms, second.atoms)
        return first
    alone = first or second
    assert alone is not None
    return alone if alone.axis >= rank - 2 else opaque(walk, node, flows)


def _attention(walk: Walk, node: Node, flows: Flows) -> Flow | None:
    """Scaled dot products of queries, keys and values [..., heads, positions, size]; masks know no channels."""
    if len(flows) < 3 or any(flow is not None for flow in flows[3:]):
        return opaque(walk, node, flows)
    query, key, value = flows[:3]
    if query is None or key is None or value is None:
        return opaque(walk, node, flows)
    rank, axes = len(node.shape), {query.axis, key.axis, value.axis}
    inside = axes == {rank - 1} and bool(node.detail[0])  # without a given scale it changes with the size
    if len(axes) > 1 or not (inside or axes <= set(range(1, rank - 2))):
        return opaque(walk, node, flows)
    walk.tie(query.atoms, key.atoms)
    if not inside:
        walk.tie(query.atoms, value.atoms)
    return value


Rule = Callable[[Walk, Node, Flows], Flow | None]
RULES: dict[str, Rule] = {
    "input": _input,
    "output": _output,
    "opaque": opaque,
    "conv": _conv,
    "conv_transpose": _conv,
    "linear": _linear,
    "embedding": _embedding,
    "batch_norm": _scaled,
    "group_norm": _scaled,
    "vector": _scaled,
    "layer_norm": _layer_norm,
    "same": _same,
    "pool": _pool,
    "binary": _binary,
    "cat": _cat,
    "split": _split,
    "item": _item,
    "slice": _slice,
    "view": _view,
    "expand": _expand,
    "reduce": _reduce,
    "softmax": _softmax,
    "permute": _permute,
    "pad": _pad,
    "select": _select,
    "matmul": _matmul,
    "attention": _attention,
}


def pass_on(walk: Walk, node: Node, flow: Flow | None) -> Flow | None:
    """What a removed layer gives: its input."""
    if node.op not in {"conv", "conv_transpose", "linear"}:
        return flow
    before, axis = walk.shape(node.operands[0]), len(node.shape) - 1 if node.op == "linear" else 1
    if flow is None or flow.axis != axis:
        # Nobody follows these channels, so nobody could bring the consumers to another width.
        if before[axis] != node.shape[axis]:
            raise WidthConflict(f"{node.layer} turns {before[axis]} channels of unknown origin into {node.shape[axis]}")
        return flow
    return Flow(flow.axis, flow.atoms, Mapped(node.layer, flow))


def known_widths(nodes: tuple[Node, ...]) -> dict[str, int]:
    """Output width of each layer with weights."""
    last = {"linear", "embedding"}
    return {
        node.layer: node.shape[-1 if node.op in last else 1]
        for node in nodes
        if node.op in {"conv", "conv_transpose", *last} and node.layer
    }
