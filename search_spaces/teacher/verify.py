"""Trying what was derived: a student is run before it is handed out, and uncertain sizes are tried at the door."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

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
        outputs, seen = _widths(meta_twin(student), reading, shape, without_values(reading.example))
    except FAULTS as fault:
        if not reading.needs_values:
            return _first_line(fault)
        try:
            outputs, seen = _widths(meta_twin(student, meta=False), reading, shape, reading.example)
        except FAULTS as again:
            return _first_line(again)
    for name, found in seen:
        expected = shape.width_out(name)
        if found != expected:
            return f"{name} gives {found} channels where {expected} were expected"
    if outputs != reading.output_shapes:
        return f"the output has the shapes {_print(outputs)} instead of {_print(reading.output_shapes)}"
    return ""


def verify(reading: Reading, shape: Shape, student: nn.Module) -> None:
    """Runs a student on the example inputs, without values, then forward and backward with them, in eval mode.

    Raises:
        SpaceError: it does not run, or its widths or outputs are not what its architecture says.
    """
    wrong = misfit(reading, shape, student)
    if not wrong:
        training = student.training
        try:
            wrong = _forward_and_backward(reading, student.eval())
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


def _forward_and_backward(reading: Reading, student: nn.Module) -> str:
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        outputs = tensors(call(student, reading.example, reading.forward_fn))
        loss = sum((value.float().square().mean() for value in outputs if value.requires_grad), torch.zeros(()))
        if not isinstance(loss, Tensor) or not loss.requires_grad:
            return "no output depends on a parameter"
        loss.backward()  # type: ignore[no-untyped-call]
    return ""


def _widths(
    network: nn.Module, reading: Reading, shape: Shape, inputs: ExampleInputs
) -> tuple[tuple[tuple[int, ...], ...], list[tuple[str, int]]]:
    """Shapes of the outputs, and how many channels each surviving layer gave at each call."""
    seen: list[tuple[str, int]] = []

    def watch(name: str, axis: int) -> None:
        def note(module: nn.Module, given: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                seen.append((name, output.shape[axis]))

        network.get_submodule(name).register_forward_hook(note)

    for name, ends in shape.plan.ends.items():
        if name not in shape.removed and all(reading.nodes[i].solo for i in reading.calls[name]):
            watch(name, ends.outgoing.axis)
    network.eval()
    with torch.no_grad():
        outputs = call(network, inputs, reading.forward_fn)
    return tuple(tuple(value.shape) for value in tensors(outputs)), seen


def _first_line(fault: Exception) -> str:
    return (str(fault).strip().splitlines() or [type(fault).__name__])[0]


def _print(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(str(list(shape)) for shape in shapes)
