"""A network as Python source: a class of torch.nn modules and calls, a loader, and nothing else."""

from __future__ import annotations

import json
import keyword
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from n2n.search.errors import ExportError
from n2n.search.export.calls import call, devices
from n2n.search.export.graph import Graph, Op, Ref, State, refs, states
from n2n.search.export.modules import constructor
from n2n.search.export.steps import ByMode, Called, Steps, called

VARIABLES, NUMBERS = tuple("xyzuvwabcdeghpqrst"), tuple("nmkijl")
RESERVED = {"self", "torch", "nn", "F", "math", "operator"}


@dataclass(frozen=True)
class Source:
    """Written code: `body` holds the class; `keys` give for each tensor of the class's state dict the network's name
    of it, or that of a constant; `tied` are state dict keys that share a tensor with an earlier key."""

    body: str
    keys: Mapping[str, str]
    tied: Mapping[str, str]


@dataclass
class Names:
    """The attributes of the class: `modules` by dotted name, `tensors` by dotted name."""

    network: nn.Module
    modules: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, str] = field(default_factory=dict)

    def add(self, table: dict[str, str], name: str) -> None:
        if name in table:
            return
        taken = {*self.modules.values(), *self.tensors.values()}
        text = re.sub(r"\W", "_", name)
        text = f"layer_{text}" if text[:1].isdigit() else text
        while text in taken or keyword.iskeyword(text) or hasattr(nn.Module, text) or text == "training":
            text += "_"
        table[name] = text

    def attribute(self, name: str) -> str:
        """The expression for a parameter, buffer or constant."""
        path, _, last = name.rpartition(".")
        return f"self.{self.modules[path]}.{last}" if path in self.modules else f"self.{self.tensors[name]}"


def write_class(
    network: nn.Module, steps: Sequence[Steps], graph: Graph, parameters: Sequence[str], *, doc: str
) -> Source:
    """The class of a network.

    Args:
        steps: one list of steps for both modes, or those of eval mode and of train mode.
        graph: the inputs and the constants.
        parameters: the names of `forward`'s positional parameters.
        doc: its docstring.

    Raises:
        ExportError: a value in the graph has no form in code.
    """
    names = Names(network)
    for module in called(steps):
        names.add(names.modules, module)
    for one in steps:
        for state in (*(s for op in one.ops for s in states(op)), *states(one.output)):
            if state.name.rpartition(".")[0] not in names.modules:
                names.add(names.tensors, state.name)
    keys = _keys(names)
    tied = _tied(network, keys)
    lines = ["class Student(nn.Module):", f'    """{doc}"""', ""]
    lines += ["    def __init__(self):", "        super().__init__()"]
    lines += [f"        {line}" for line in _init(names, graph)]
    lines += [f"        self.{key} = self.{first}" for key, first in tied.items()]
    lines += _methods(names, steps, graph, parameters)
    return Source("\n".join(lines) + "\n", keys, tied)


def _init(names: Names, graph: Graph) -> Iterator[str]:
    for path, attribute in names.modules.items():
        made = constructor(names.network.get_submodule(path))
        yield f"self.{attribute} = {made}" + ("" if attribute == path else f"  # {path}")
    for name, attribute in names.tensors.items():
        value = tensor_of(names.network, graph, name)
        shape = ", ".join(str(size) for size in value.shape) or "()"
        zeros = f"torch.zeros({shape}{'' if value.dtype == torch.float32 else f', dtype={value.dtype}'})"
        comment = "" if attribute == name else f"  # {name}"
        if isinstance(value, nn.Parameter):
            yield f"self.{attribute} = nn.Parameter({zeros}){comment}"
        else:
            yield f'self.register_buffer("{attribute}", {zeros}){comment}'


def tensor_of(network: nn.Module, graph: Graph, name: str) -> Tensor:
    """A parameter, buffer or constant by its dotted name."""
    if name in graph.constants:
        return graph.constants[name]
    path, _, last = name.rpartition(".")
    value = getattr(network.get_submodule(path), last)
    assert isinstance(value, Tensor)
    return value


def _keys(names: Names) -> dict[str, str]:
    keys: dict[str, str] = {}
    for path, attribute in names.modules.items():
        module = names.network.get_submodule(path)
        keys |= {f"{attribute}.{name}": f"{path}.{name}" for name in module.state_dict()}
    return keys | {attribute: name for name, attribute in names.tensors.items()}


def _tied(network: nn.Module, keys: Mapping[str, str]) -> dict[str, str]:
    """Keys whose parameter an earlier key holds already."""
    of_network = dict(network.named_parameters(remove_duplicate=False))
    first: dict[int, str] = {}
    tied = {}
    for key, name in keys.items():
        if name in of_network:
            earlier = first.setdefault(id(of_network[name]), key)
            if earlier != key:
                tied[key] = earlier
    return tied


def _methods(names: Names, steps: Sequence[Steps], graph: Graph, parameters: Sequence[str]) -> list[str]:
    own = [*parameters, *graph.inputs[1]]
    signature = ", ".join(["self", *own])
    if len(steps) == 1:
        return ["", f"    def forward({signature}):", *_indented(names, steps[0], graph, own)]
    passed = ", ".join(own)
    lines = ["", f"    def forward({signature}):"]
    lines += [f"        return self.forward_train({passed}) if self.training else self.forward_eval({passed})"]
    for name, one in zip(("forward_eval", "forward_train"), steps, strict=True):
        lines += ["", f"    def {name}({signature}):", *_indented(names, one, graph, own)]
    return lines


def _indented(names: Names, steps: Steps, graph: Graph, parameters: Sequence[str]) -> list[str]:
    return [f"        {line}" for line in _Body(names, graph, parameters).lines(steps)]


class _Body:
    """Writes the steps of one method; a variable is used again as soon as its value has been read for the last time."""

    def __init__(self, names: Names, graph: Graph, parameters: Sequence[str]) -> None:
        self._names, self._parameters, self._graph = names, parameters, graph
        self._variables: dict[Ref, str] = {}
        self._first = ""

    def lines(self, steps: Steps) -> list[str]:
        lines = list(self._unpacked())
        last = self._last_reads(steps)
        for position, op in enumerate(steps.ops):
            text = self._expression(op)
            freed = [r for r in self._variables if last.get(r, -1) <= position and r.index >= 0]
            freed += [r for r in set(refs(op)) if last[r] == position and r.index < 0]
            free = [self._variables.pop(ref) for ref in freed]
            if op.out not in last:
                lines.append(text)
                continue
            read = [name for name in free if re.search(rf"\b{name}\b", text)]
            name = read[0] if read and not op.number and read[0] not in NUMBERS else self._fresh(op.number)
            self._variables[op.out] = name
            lines.append(f"{name} = {text}" + (f"  # {op.shape}" if op.shape else ""))
        return [*lines, f"return {self._write(steps.output)}"]

    def _unpacked(self) -> Iterator[str]:
        """Names the tensor inputs; those that come in a tuple or dict are taken out of it."""
        args, kwargs = self._graph.inputs
        tops = [*zip(self._parameters, args, strict=False), *kwargs.items()]
        for name, top in tops:
            if isinstance(top, Ref):
                self._variables[top] = name
        for name, top in tops:
            if not isinstance(top, Ref):
                for path, ref in _paths(top):
                    self._variables[ref] = self._fresh()
                    yield f"{self._variables[ref]} = {name}{path}"
        self._first = next(iter(self._variables.values()))

    def _last_reads(self, steps: Steps) -> dict[Ref, int]:
        last: dict[Ref, int] = {}
        for position, op in enumerate(steps.ops):
            last |= dict.fromkeys(refs(op), position)
            if devices(op):
                last[Ref(-1)] = position
        return last | dict.fromkeys(refs(steps.output), len(steps.ops))

    def _fresh(self, number: bool = False) -> str:
        taken = {*self._variables.values(), *self._parameters, *RESERVED}
        names = (
            *(NUMBERS if number else VARIABLES),
            *(f"{'n' if number else 'x'}{i}" for i in range(2, len(taken) + 3)),
        )
        return next(name for name in names if name not in taken)

    def _expression(self, op: Op) -> str:
        if isinstance(op.target, Called):
            return f"self.{self._names.modules[op.target.module]}({self._write(op.args[0])})"
        return call(op, self._write)

    def _write(self, value: Any) -> str:
        if isinstance(value, Ref):
            return self._variables[value]
        if isinstance(value, State):
            return self._names.attribute(value.name)
        if isinstance(value, ByMode):
            if (value.train, value.evaluation) == (True, False):
                return "self.training"
            return f"({self._write(value.train)} if self.training else {self._write(value.evaluation)})"
        if isinstance(value, torch.device):
            return f"{self._variables[Ref(-1)]}.device"
        return self._literal(value)

    def _literal(self, value: Any) -> str:
        if isinstance(value, Mapping):
            return "{" + ", ".join(f"{_quoted(key)}: {self._write(one)}" for key, one in value.items()) + "}"
        if isinstance(value, list):
            return f"[{', '.join(self._write(one) for one in value)}]"
        if isinstance(value, tuple):
            return f"({', '.join(self._write(one) for one in value)}{',' if len(value) == 1 else ''})"
        if isinstance(value, float) and not math.isfinite(value):
            return f'float("{value}")'
        if isinstance(value, str):
            return _quoted(value)
        if value is None or isinstance(value, bool | int | float | complex):
            return repr(value)
        if isinstance(value, torch.dtype | torch.layout | torch.memory_format):
            return str(value)
        raise ExportError(
            f"the graph holds a {type(value).__name__}, which has no form in Python source; use format pt2"
        )


def _quoted(value: Any) -> str:
    """A literal; text in double quotes."""
    return json.dumps(value) if isinstance(value, str) else repr(value)


def _paths(nested: Any) -> Iterator[tuple[str, Ref]]:
    """The refs in a tuple or dict with what stands in brackets behind its name."""
    if isinstance(nested, Ref):
        yield "", nested
    elif isinstance(nested, Mapping | tuple | list):
        items = nested.items() if isinstance(nested, Mapping) else enumerate(nested)
        for key, one in items:
            yield from ((f"[{_quoted(key)}]{path}", ref) for path, ref in _paths(one))
