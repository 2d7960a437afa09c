"""Trying what was derived: a student is run before it is handed out, and uncertain sizes are tried at the door."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from search_spaces.base import SpaceError
from search_spaces.teacher.analysis import Reading
from search_spaces.teacher.capture import ExampleInputs
from search_spaces.teacher.macs import call, meta_twin, tensors, without_values
from search_spaces.teacher.removal import Shape

FAULTS = (RuntimeError, ValueError, TypeError, IndexError, AssertionError, NotImplementedError, ArithmeticError)
"""What a network whose sizes do not fit together raises."""


def misfit(reading: Reading, shape: Shape, student: nn.Module) -> str:
    """Where a student, run without values, differs in its widths from what its shape says; empty where it does not.

    A student that cannot run without values, as its teacher cannot either, is run with them.
    """
    try:
        with torch.no_grad():
            ran = _run(meta_twin(student).eval(), reading, shape, without_values(reading.example))
    except FAULTS as fault:
        if not reading.needs_values:
            return _first_line(fault)
        try:
            with torch.no_grad():
                ran = _run(meta_twin(student, meta=False).eval(), reading, shape, reading.example)
        except FAULTS as again:
            return _first_line(again)
    return _difference(reading, shape, *ran)


def verify(reading: Reading, shape: Shape, student: nn.Module) -> None:
    """Runs a student on the example inputs, forward and backward, in eval mode.

    Raises:
        SpaceError: it does not run, or its widths or outputs are not what its architecture says.
    """
    training = student.training
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            outputs, seen = _run(student.eval(), reading, shape, reading.example)
            wrong = _difference(reading, shape, outputs, seen) or _backward(outputs)
    except FAULTS as fault:
        wrong = _first_line(fault)
    finally:
        student.zero_grad(set_to_none=True)
        student.train(training)
    if wrong:
        raise SpaceError(
            f"a student of {type(reading.network).__name__} does not work ({wrong}); removed: "
            f"{', '.join(sorted(shape.removed)) or 'nothing'}. This is a fault of N2N: please report it with the "
            "network, and name the layers in ignored_layers meanwhile"
        )


def _run(
    network: nn.Module, reading: Reading, shape: Shape, inputs: ExampleInputs
) -> tuple[list[Tensor], list[tuple[str, int]]]:
    """The outputs, and how many channels each surviving layer gave at each call."""
    seen: list[tuple[str, int]] = []

    def watch(name: str, axis: int) -> RemovableHandle:
        def note(module: nn.Module, given: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                seen.append((name, output.shape[axis]))

        return network.get_submodule(name).register_forward_hook(note)

    with ExitStack() as hooks:
        for name, ends in shape.plan.ends.items():
            if name not in shape.removed and all(reading.nodes[i].solo for i in reading.calls[name]):
                hooks.callback(watch(name, ends.outgoing.axis).remove)
        return tensors(call(network, inputs, reading.forward_fn)), seen


def _difference(reading: Reading, shape: Shape, outputs: Sequence[Tensor], seen: Sequence[tuple[str, int]]) -> str:
    for name, found in seen:
        expected = shape.width_out(name)
        if found != expected:
            return f"{name} gives {found} channels where {expected} were expected"
    shapes = tuple(tuple(value.shape) for value in outputs)
    if shapes != reading.output_shapes:
        return f"the output has the shapes {_print(shapes)} instead of {_print(reading.output_shapes)}"
    return ""


def _backward(outputs: Sequence[Tensor]) -> str:
    loss = sum((value.float().square().mean() for value in outputs if value.requires_grad), torch.zeros(()))
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        return "no output depends on a parameter"
    loss.backward()  # type: ignore[no-untyped-call]
    return ""


def _first_line(fault: Exception) -> str:
    return (str(fault).strip().splitlines() or [type(fault).__name__])[0]


def _print(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(str(list(shape)) for shape in shapes)
