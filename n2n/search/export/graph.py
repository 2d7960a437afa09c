"""A captured graph as a plain list of operations, for writing it down as code.

Higher-order `no_grad` regions are laid open, checks and results that nobody reads are dropped, and what is written in
place to a parameter or buffer counts as that parameter or buffer.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from n2n.search.errors import ExportError


@dataclass(frozen=True)
class Ref:
    """A value: the result of an operation, or an input (`index` below 0)."""

    index: int


@dataclass(frozen=True)
class State:
    """A parameter, buffer or constant of the network, by its dotted name."""

    name: str


@dataclass(frozen=True)
class Op:
    """One operation: `out` is its result; `call` names the innermost module call that asked for it ("bn@1" is the
    second one of bn); `shape` is that of a tensor result, as text with B for the batch; `number` marks integers."""

    target: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    out: Ref
    call: str = ""
    shape: str = ""
    number: bool = False

    @property
    def mutates(self) -> bool:
        """Whether it does more than give a result."""
        schema = getattr(self.target, "_schema", None)
        return self.target is torch.set_grad_enabled or (schema is not None and schema.is_mutable)


@dataclass(frozen=True)
class Graph:
    """Operations in order; `inputs` are refs in the structure of (args, kwargs), `output` refs in that of the output;
    `constants` are tensors that are neither parameters nor buffers, by name."""

    ops: tuple[Op, ...]
    inputs: tuple[tuple[Any, ...], Mapping[str, Any]]
    output: Any
    constants: Mapping[str, Tensor]


CHECKS = (
    "_assert_scalar",
    "_assert_tensor_metadata",
    "_assert_async",
    "sym_constrain_range",
    "sym_constrain_range_for_size",
)
"""Operations that only check what torch.export assumed."""


def graph_of(program: ExportedProgram, prefix: str = "") -> Graph:
    """Reads a program; `prefix` is dropped from the names of modules and tensors.

    Raises:
        ExportError: it holds a region that cannot be written as code.
    """
    values: dict[fx.Node, Any] = {}
    inputs: list[Ref] = []
    constants: dict[str, Tensor] = {}
    placeholders = [node for node in program.graph.nodes if node.op == "placeholder"]
    for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True):
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
            values[node] = State(str(spec.target).removeprefix(prefix))
        elif spec.kind is InputKind.CONSTANT_TENSOR:
            values[node] = State(str(spec.target).removeprefix(prefix))
            constants[values[node].name] = program.constants[str(spec.target)]
        elif spec.kind is InputKind.USER_INPUT:
            values[node] = Ref(-1 - len(inputs))
            inputs.append(values[node])
        else:
            raise ExportError(f"the graph takes an input of kind {spec.kind.name}, which cannot be written as code")
    reader = _Reader(prefix, _batch_symbol(placeholders, values))
    ops = tuple(reader.read(program.graph_module, values))
    args, kwargs = pytree.tree_unflatten(inputs, program.call_spec.in_spec)
    output = pytree.tree_unflatten(list(reader.output), program.call_spec.out_spec)
    kept = _needed(ops, output)
    names = {state.name for state in states([*kept, output])}
    return Graph(kept, (args, kwargs), output, {name: value for name, value in constants.items() if name in names})


def refs(value: Any) -> list[Ref]:
    """The refs in an operation's arguments, or in any nest of values, in order."""
    return [leaf for leaf in leaves(value) if isinstance(leaf, Ref)]


def states(value: Any) -> list[State]:
    """The parameters, buffers and constants in an operation's arguments, or in any nest of values, in order."""
    return [leaf for leaf in leaves(value) if isinstance(leaf, State)]


def leaves(value: Any) -> Iterator[Any]:
    """What nested tuples, lists, dicts, slices and the arguments of operations hold."""
    if isinstance(value, Op):
        yield from leaves((value.args, value.kwargs))
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from leaves(one)
    elif isinstance(value, tuple | list):
        for one in value:
            yield from leaves(one)
    elif isinstance(value, slice):
        yield from leaves((value.start, value.stop, value.step))
    else:
        yield value


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """`value` with every leaf replaced; containers become plain ones."""
    if isinstance(value, Mapping):
        return {key: mapped(function, one) for key, one in value.items()}
    if isinstance(value, list):
        return [mapped(function, one) for one in value]
    if isinstance(value, tuple):
        return tuple(mapped(function, one) for one in value)
    if isinstance(value, slice):
        return slice(mapped(function, value.start), mapped(function, value.stop), mapped(function, value.step))
    return function(value)


@dataclass
class _Reader:
    """Lays a graph module open; results are numbered across nested regions."""

    prefix: str
    batch: str
    count: int = 0
    output: tuple[Any, ...] = ()

    def read(self, module: fx.GraphModule, values: dict[fx.Node, Any]) -> Iterator[Op]:
        for node in module.graph.nodes:
            if node.op == "call_function":
                yield from self._call(module, node, values)
            elif node.op == "output":
                self.output = tuple(self._value(values, one) for one in node.args[0])

    def _call(self, module: fx.GraphModule, node: fx.Node, values: dict[fx.Node, Any]) -> Iterator[Op]:
        name = getattr(node.target, "__name__", str(node.target))
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            yield from self._region(module, node, values)
            return
        if name.split(".")[0] in CHECKS:
            return
        args, kwargs = self._value(values, node.args), self._value(values, node.kwargs)
        if node.target is operator.getitem and isinstance(args[0], tuple | list):
            values[node] = args[0][args[1]]  # an output of a region
            return
        if name == "slice.Tensor" and _takes_all(args[1:]):
            values[node] = args[0]
            return
        op = Op(node.target, args, kwargs, Ref(self.count), self._caller(node), self._shape(node), _is_number(node))
        self.count += 1
        written = args[0] if op.mutates and args and name.split(".")[0].endswith("_") else None
        values[node] = written if isinstance(written, State) else op.out
        yield op

    def _region(self, module: fx.GraphModule, node: fx.Node, values: dict[fx.Node, Any]) -> Iterator[Op]:
        if node.target is not torch.ops.higher_order.wrap_with_set_grad_enabled:
            raise ExportError(
                f"the network uses {node.target}, whose inner graph cannot be written as code; use format pt2 or onnx"
            )
        enabled, inner, *given = node.args
        region = module.get_submodule(str(inner.target))  # type: ignore[union-attr]
        assert isinstance(region, fx.GraphModule)
        taken = [one for one in region.graph.nodes if one.op == "placeholder"]
        inside = dict(zip(taken, (self._value(values, one) for one in given), strict=True))
        before = self._op(torch.is_grad_enabled)
        yield before
        yield self._op(torch.set_grad_enabled, bool(enabled))
        yield from self.read(region, inside)
        yield self._op(torch.set_grad_enabled, before.out)
        values[node] = self.output

    def _op(self, function: Callable[..., Any], *args: Any) -> Op:
        self.count += 1
        return Op(function, args, {}, Ref(self.count - 1))

    def _value(self, values: dict[fx.Node, Any], nested: Any) -> Any:
        return mapped(lambda leaf: values[leaf] if isinstance(leaf, fx.Node) else leaf, nested)

    def _caller(self, node: fx.Node) -> str:
        stack = node.meta.get("nn_module_stack") or {}
        path = str(list(stack.values())[-1][0]) if stack else ""
        key = str(list(stack)[-1]) if stack else ""
        count = key[key.rindex("@") :] if "@" in key and "@" not in path else ""
        return path.removeprefix(self.prefix) + count

    def _shape(self, node: fx.Node) -> str:
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            return ""
        shape = ", ".join(str(size) for size in value.shape)
        return f"[{shape.replace(self.batch, 'B') if self.batch else shape}]"


def _takes_all(rest: Sequence[Any]) -> bool:
    """Whether a slice of these arguments (axis, start, end, step) is the whole."""
    start, end, step = (rest[i] if i < len(rest) else None for i in (1, 2, 3))
    return start in (None, 0) and step in (None, 1) and (end is None or (isinstance(end, int) and end >= 2**62))


def _is_number(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), int | float | bool | torch.SymInt | torch.SymFloat | torch.SymBool)


def _batch_symbol(placeholders: Sequence[fx.Node], values: Mapping[fx.Node, Any]) -> str:
    for node in placeholders:
        value = node.meta.get("val")
        if isinstance(values[node], Ref) and isinstance(value, Tensor) and value.dim():
            size = value.shape[0]
            if isinstance(size, torch.SymInt):
                return str(size)
    return ""


def _needed(ops: Sequence[Op], output: Any) -> tuple[Op, ...]:
    """Without the operations whose results nobody reads; those that write in place stay, and random ones too."""
    read = set(refs(output))
    kept: list[Op] = []
    for op in reversed(ops):
        random = torch.Tag.nondeterministic_seeded in getattr(op.target, "tags", ())
        if op.out in read or op.mutates or random:
            read.update(refs(op))
            kept.append(op)
    return tuple(reversed(kept))
