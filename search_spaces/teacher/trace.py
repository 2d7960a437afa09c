"""A network's graph, read with `torch.export` and reduced to what editing needs.

Every tensor operation becomes one `Node`. Its `op` says how channels travel through it; whatever is not known here is
"opaque": the channels that reach it are frozen, with the source line as the reason.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from search_spaces.base import SpaceError
from search_spaces.teacher.capture import ExampleInputs, ForwardFn, capture
from search_spaces.teacher.operations import LAYERED, classify


@dataclass(frozen=True)
class Node:
    """One tensor operation.

    `inputs` are indices of earlier nodes (parameters and constants are not nodes); `operands` are all tensors that it
    takes, in the order of its arguments, -1 for a parameter or constant; `shape` is the output's, with batch; `detail`
    holds the integers that the rule of `op` needs; `layer` is the path of the leaf module whose only kind of operation
    this is, or whose weights it alone uses (then `solo` is false), else empty; `line` is where the user's code asked
    for it; `in_place` marks functional operations that overwrite their input; `modules` are the paths of all modules
    that it runs in, outermost first; `fixed` names the parameters and buffers that it takes and no layer holds for it.
    """

    index: int
    op: str
    layer: str
    inputs: tuple[int, ...]
    operands: tuple[int, ...]
    shape: tuple[int, ...]
    detail: tuple[int, ...]
    target: str
    line: str
    in_place: bool
    solo: bool = True
    modules: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()


def trace(
    network: nn.Module,
    example_inputs: ExampleInputs,
    forward_fn: ForwardFn | None = None,
    *,
    seconds: float = float("inf"),
) -> tuple[tuple[Node, ...], nn.Module]:
    """The nodes of a network in execution order, and the copy of the network (eval mode) that they were read from.

    Raises:
        SpaceError: see `capture`.
    """
    own = _private(network)
    program = capture(own, example_inputs, forward_fn, seconds=seconds)
    prefix = "" if forward_fn is None else "network."
    return tuple(_nodes(program, own, prefix)), own


def _private(network: nn.Module) -> nn.Module:
    """A copy in eval mode whose forward goes through its layers."""
    own = copy.deepcopy(network).eval()
    for module in own.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            # In eval mode it would hand the weights of its layers to one fused kernel, past any edit of them. Zero says
            # that its activation is none which that kernel knows; it computes the same.
            module.activation_relu_or_gelu = 0
    return own


def _nodes(program: torch.export.ExportedProgram, network: nn.Module, prefix: str) -> Iterator[Node]:
    signature = program.graph_signature
    names = _first_names(network)
    parameters: dict[str, str] = {
        name: _renamed(path.removeprefix(prefix), names)
        for table in (signature.inputs_to_parameters, signature.inputs_to_buffers)
        for name, path in table.items()
    }
    shared = _shared(network)
    user_inputs = {str(name) for name in signature.user_inputs}
    index_of: dict[fx.Node, int] = {}
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    paths = {node: names[_leaf(node, network, prefix)] for node in calls}
    owners = {
        node: {parameters[a.name].rpartition(".")[0] for a in node.all_input_nodes if a.name in parameters}
        for node in calls
    }
    layers = _layers(calls, paths, owners)
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in user_inputs:
            index_of[node] = len(index_of)
            yield Node(index_of[node], "input", "", (), (), _shape(node), (), "input", "", False)
        elif node.op == "call_function":
            index_of[node] = len(index_of)
            path, solo = layers[node]
            inputs = tuple(index_of[a] for a in node.all_input_nodes if a in index_of)
            op, detail = classify(node, _shape(node), tensor_inputs=len(inputs), parameters=len(owners[node]))
            if op in LAYERED and owners[node] and (not path or owners[node] != {path} or path in shared):
                op, path = "opaque", path if solo else ""  # parameters of another module, or of several
            target = str(node.target).removeprefix("aten.")
            in_place = target.split(".")[0].endswith("_") and not path
            yield Node(
                index_of[node],
                op,
                path,
                inputs,
                _operands(node, index_of),
                _shape(node),
                detail,
                target,
                _line(node),
                in_place,
                solo,
                _modules(node, names, prefix),
                () if path else tuple(parameters[a.name] for a in node.all_input_nodes if a.name in parameters),
            )
        elif node.op == "output":
            outputs = tuple(index_of[a] for a in node.all_input_nodes if a in index_of)
            yield Node(len(index_of), "output", "", outputs, outputs, (), (), "output", "", False)


def _layers(
    calls: list[fx.Node], paths: dict[fx.Node, str], owners: dict[fx.Node, set[str]]
) -> dict[fx.Node, tuple[str, bool]]:
    """The layer of each operation, and whether that layer does nothing else.

    A leaf module that asks for one kind of operation is a layer; in one that asks for several, the one kind that uses
    its weights is.
    """
    kinds: dict[str, set[str]] = {}
    weighted: dict[str, set[str]] = {}
    for node, path in paths.items():
        kinds.setdefault(path, set()).add(str(node.target))
        if owners[node]:
            weighted.setdefault(path, set()).add(str(node.target))
    found = {}
    for node, path in paths.items():
        solo = len(kinds[path]) == 1
        mine = solo or (bool(owners[node]) and weighted[path] == {str(node.target)})
        found[node] = (path, solo) if path and mine else ("", True)
    return found


def _operands(node: fx.Node, index_of: dict[fx.Node, int]) -> tuple[int, ...]:
    found: list[int] = []

    def visit(argument: Any) -> None:
        if isinstance(argument, fx.Node):
            found.append(index_of.get(argument, -1))
        elif isinstance(argument, list | tuple):
            for item in argument:
                visit(item)

    visit(node.args)
    return tuple(found)


def _leaf(node: fx.Node, network: nn.Module, prefix: str) -> str:
    """The path of the childless module that asked for the operation, or empty."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return ""
    path = str(list(stack.values())[-1][0])
    if prefix and not path.startswith(prefix):
        return ""
    path = re.sub(r"@\d+", "", path.removeprefix(prefix))
    if not path:
        return ""
    module = network.get_submodule(path)
    return "" if any(True for _ in module.children()) else path


def _modules(node: fx.Node, names: Mapping[str, str], prefix: str) -> tuple[str, ...]:
    """The first names of the modules around an operation, outermost first, without the network itself."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = (re.sub(r"@\d+", "", str(path)).removeprefix(prefix) for path, _ in stack.values())
    return tuple(dict.fromkeys(names[path] for path in paths if names.get(path)))


def _first_names(network: nn.Module) -> dict[str, str]:
    """For each path to a module the first path to it: a module that is registered in several places is one layer."""
    first = {id(module): path for path, module in network.named_modules()}
    return {path: first[id(module)] for path, module in network.named_modules(remove_duplicate=False)}


def _renamed(parameter: str, names: Mapping[str, str]) -> str:
    """A parameter's path by way of the first path to its module."""
    owner, _, name = parameter.rpartition(".")
    return f"{names[owner]}.{name}"


def _shared(network: nn.Module) -> frozenset[str]:
    """The modules that hold a parameter which another module holds too."""
    holders: dict[int, set[str]] = {}
    for path, module in network.named_modules():
        for parameter in module.parameters(recurse=False):
            holders.setdefault(id(parameter), set()).add(path)
    return frozenset(path for paths in holders.values() if len(paths) > 1 for path in paths)


def _shape(node: fx.Node) -> tuple[int, ...]:
    value = node.meta.get("val")
    try:
        return tuple(int(size) for size in value.shape) if isinstance(value, torch.Tensor) else ()
    except GuardOnDataDependentSymNode as error:
        raise SpaceError(
            f"{str(node.target).removeprefix('aten.')} at {_line(node) or 'an unknown line'} gives a tensor whose size"
            " depends on values, and such networks cannot be followed. Wrap the network in a module whose forward keeps"
            " all entries (a mask instead of a selection)"
        ) from error


def _line(node: fx.Node) -> str:
    """The innermost line of the user's own code, as `file:number`."""
    frames = re.findall(r'File "([^"]+)", line (\d+)', str(node.meta.get("stack_trace") or ""))
    own = [(file, number) for file, number in frames if "/torch/nn/" not in file]
    if not own:
        return ""
    file, number = own[-1]
    return f"{file.rsplit('/', 1)[-1]}:{number}"
