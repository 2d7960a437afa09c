"""Capturing a network's graph with `torch.export`: within a time limit, quietly, and with errors that help."""

from __future__ import annotations

import io
import logging
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.overrides import TorchFunctionMode

from search_spaces.base import SpaceError

ExampleInputs = torch.Tensor | tuple[torch.Tensor, ...] | Mapping[str, torch.Tensor]
ForwardFn = Callable[[nn.Module, Any], torch.Tensor]

_TALKATIVE = ("torch.fx.experimental.symbolic_shapes", "torch.export", "torch._export")
"""Loggers that tell of a failed capture at length; what they know is in the error."""


class CaptureTimeoutError(SpaceError):
    """A network's operations took longer than they may."""


class _Wrapped(nn.Module):
    """A network behind the user's own way of calling it."""

    def __init__(self, network: nn.Module, forward_fn: ForwardFn) -> None:
        super().__init__()
        self.network = network
        self._forward_fn = forward_fn

    def forward(self, inputs: Any) -> torch.Tensor:
        return self._forward_fn(self.network, inputs)


class _OutOfTime(BaseException):
    """Passes any `except Exception` in a network's forward; never leaves this module."""


class _Deadline(TorchFunctionMode):
    """Ends whatever runs in it at the first operation after a time."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._end = time.monotonic() + seconds

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # While a network is left, torch functions still put back what it had switched.
        if time.monotonic() > self._end and not isinstance(sys.exception(), _OutOfTime):
            raise _OutOfTime
        return func(*args, **(kwargs or {}))


def capture(
    network: nn.Module,
    example_inputs: ExampleInputs,
    forward_fn: ForwardFn | None = None,
    *,
    seconds: float = float("inf"),
) -> ExportedProgram:
    """The graph of a network (eval mode) for batches of the example's size; it shares the network's weights.

    Raises:
        SpaceError: the network does not run on the example inputs, its graph cannot be captured (with the line of the
            user's code, where that is known), or its operations take longer than `seconds`.
    """
    module: nn.Module = network if forward_fn is None else _Wrapped(network, forward_fn)
    args, kwargs = _arguments(example_inputs, forward_fn)
    name = type(network).__name__
    deadline = _Deadline(seconds)
    late = (
        f"{name}: its graph was not captured within {seconds:.3g} s. Give smaller example inputs (two examples are "
        "enough), or a network whose forward loops less"
    )
    try:
        with torch.no_grad(), deadline:
            module(*args, **kwargs)
    except _OutOfTime:
        raise CaptureTimeoutError(late) from None
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise SpaceError(
            f"{name} does not run on the example inputs {_shapes(example_inputs)}: {error}. "
            "Pass one batch just as the network receives it in training."
        ) from error
    try:
        with torch.no_grad(), warnings.catch_warnings(), _quiet(), deadline:
            # Recurrent layers gather their weights anew in each call; the copy that this happens to is ours.
            warnings.filterwarnings("ignore", message="The tensor attribute.* assigned during export")
            return torch.export.export(module, args, kwargs)
    except _OutOfTime:
        raise CaptureTimeoutError(late) from None
    except GuardOnDataDependentSymNode as error:
        raise SpaceError(
            f"{name}: its forward takes one path or another depending on values{_place(error)}, so that it has no one"
            " graph. Wrap the network in a module whose forward takes the path that you deploy (the"
            " spaces and n2n.inspect also take a forward_fn that calls it so)"
        ) from error
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise SpaceError(
            f"{name}: torch.export could not capture its graph ({str(error).splitlines()[0]}). Operations of your own "
            "that it cannot look into (an autograd.Function, NumPy, .item()) are the usual cause: wrap the network in "
            "a module whose forward is made of PyTorch's operations (the spaces and n2n.inspect also take a forward_fn)"
        ) from error


def _place(error: Exception) -> str:
    """The innermost line of the user's own code that an error of torch speaks of, ready to be read on."""
    frames = re.findall(r'File "([^"]+)", line (\d+), in [^\n]*\n\s*([^\n]*)', str(error))
    own = [frame for frame in frames if "/torch/" not in frame[0]]
    if not own:
        return ""
    file, number, code = own[-1]
    return f" ({file.rsplit('/', 1)[-1]}:{number}: {code.strip()})"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps torch's own account of a failed capture from the screen; what else was written comes after a success."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [one.level for one in loggers]
    written = io.StringIO()
    try:
        for one in loggers:
            one.setLevel(logging.CRITICAL)
        with redirect_stderr(written):
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
    sys.stderr.write(written.getvalue())


def _arguments(example_inputs: ExampleInputs, forward_fn: ForwardFn | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if forward_fn is not None or isinstance(example_inputs, torch.Tensor):
        return (example_inputs,), {}
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, tuple):
        return example_inputs, {}
    raise SpaceError(f"example_inputs: expected a tensor, a tuple or a dict, found {type(example_inputs).__name__}")


def _shapes(example_inputs: ExampleInputs) -> str:
    if isinstance(example_inputs, torch.Tensor):
        return str(list(example_inputs.shape))
    if isinstance(example_inputs, Mapping):
        return str({name: list(value.shape) for name, value in example_inputs.items()})
    return str([list(value.shape) for value in example_inputs])
