"""From operations to the steps of a readable `forward`: calls of whole modules, and one step list for both modes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from torch import nn

from n2n.search.export.graph import Graph, Op, Ref, leaves, mapped, refs, states
from n2n.search.export.modules import constructor


@dataclass(frozen=True)
class Called:
    """The target of a step that calls a module, by its dotted name."""

    module: str


@dataclass(frozen=True)
class ByMode:
    """An argument that is one value in train mode and another in eval mode."""

    train: Any
    evaluation: Any


@dataclass(frozen=True)
class Steps:
    """Operations, some of which call modules, and the refs of the output."""

    ops: tuple[Op, ...]
    output: Any


def steps_of(graph: Graph, network: nn.Module) -> Steps:
    """Puts the operations of one module call into one step, where the module can be written as a module."""
    numbers = {op.out for op in graph.ops if op.number}
    modules = dict(network.named_modules(remove_duplicate=False))
    runs = [tuple(run) for _, run in groupby(graph.ops, key=lambda op: op.call)]
    readers: dict[Ref, set[int]] = {ref: {len(runs)} for ref in refs(graph.output)}
    for i, run in enumerate(runs):
        for ref in (ref for op in run for ref in refs(op)):
            readers.setdefault(ref, set()).add(i)
    made: list[Op] = []
    for i, run in enumerate(runs):
        path = run[0].call.partition("@")[0]
        results = [op for op in run if readers.get(op.out, set()) - {i}]
        call = _module_call(run, path, modules[path], results, numbers) if path and path in modules else None
        made += [call] if call else run
    return _renumbered(made, graph.output)


def _renumbered(ops: Sequence[Op], output: Any) -> Steps:
    """The operations with their results numbered 0, 1, 2, ... in order."""
    numbers: dict[Ref, Ref] = {}

    def new(value: Any) -> Any:
        return numbers.get(value, value) if isinstance(value, Ref) else value

    made: list[Op] = []
    for op in ops:
        args, kwargs = mapped(new, op.args), mapped(new, dict(op.kwargs))
        numbers[op.out] = Ref(len(made))
        made.append(replace(op, args=args, kwargs=kwargs, out=numbers[op.out]))
    return Steps(tuple(made), mapped(new, output))


def _module_call(
    run: Sequence[Op], path: str, module: nn.Module, results: Sequence[Op], numbers: set[Ref]
) -> Op | None:
    """One step for the operations `run`, where they are a whole call of the module: its own weights, one tensor in,
    one out (`results` are those that others read)."""
    if constructor(module) is None:
        return None
    inside = {op.out for op in run}
    given = [ref for op in run for ref in refs(op) if ref not in inside and ref not in numbers]
    own = {f"{path}.{name}" for name in module.state_dict(keep_vars=True)}
    used = {state.name for op in run for state in states(op)}
    if len(set(given)) != 1 or len(results) != 1 or results[0].number or not used <= own:
        return None
    return Op(Called(path), (given[0],), {}, results[0].out, run[0].call, results[0].shape)


def merged(evaluation: Steps, training: Steps) -> Steps | None:
    """One list of steps for both modes, or None where they do different things.

    What differs may only be numbers and flags in the arguments, such as whether a dropout is on.
    """
    ours, theirs = evaluation.ops, training.ops
    if len(ours) != len(theirs) or evaluation.output != training.output:
        return None
    made = []
    for one, other in zip(ours, theirs, strict=True):
        count = max(len(one.args), len(other.args))
        pair = _both([_filled(one, count), dict(one.kwargs)], [_filled(other, count), dict(other.kwargs)])
        if one.target != other.target or pair is None:
            return None
        made.append(replace(one, args=pair[0], kwargs=pair[1]))
    return Steps(tuple(made), evaluation.output)


def _filled(op: Op, count: int) -> tuple[Any, ...]:
    """The first `count` arguments: those given, then defaults."""
    schema = getattr(op.target, "_schema", None)
    defaults = [one.default_value for one in schema.arguments] if schema else []
    return (*op.args, *defaults[len(op.args) : count])


def _both(ours: Any, theirs: Any) -> Any:
    """The same nest with `ByMode` where plain numbers differ, or None."""
    a, b = list(leaves(ours)), list(leaves(theirs))
    same_nest = mapped(lambda _: 0, ours) == mapped(lambda _: 0, theirs)
    fits = all(x == y or (isinstance(x, bool | float) and type(x) is type(y)) for x, y in zip(a, b, strict=False))
    if not same_nest or not fits:
        return None
    pairs = iter(zip(a, b, strict=True))

    def choose(_: Any) -> Any:
        x, y = next(pairs)
        return x if type(x) is type(y) and x == y else ByMode(train=y, evaluation=x)

    return mapped(choose, ours)


def called(steps: Sequence[Steps]) -> Mapping[str, None]:
    """The modules that are called, in order of their first call, as the keys of a dict."""
    return {op.target.module: None for one in steps for op in one.ops if isinstance(op.target, Called)}
