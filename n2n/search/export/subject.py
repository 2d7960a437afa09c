"""What is exported: a private copy of a network, inputs for it of any batch size, and its graph."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from n2n.search.errors import ExportError
from search_spaces.teacher.capture import ExampleInputs

BATCHES = (1, 3, 5)
"""The batch sizes that an export is compared on; the example's own is left out where another one remains."""

CAPTURE_ERRORS = (RuntimeError, ValueError, TypeError, AssertionError, IndexError, KeyError, NotImplementedError)
"""What torch's exporters raise where a network cannot be captured."""


@dataclass(frozen=True)
class Subject:
    """A network on its way out.

    Attributes:
        network: a copy in eval mode on the CPU; its outputs are tensors, None, and tuples, lists and dicts of them.
        name: what messages call it.
        forward: names of the parameters of its `forward`.
        args, kwargs: the example inputs, tensors with the batch on axis 0, nested as the network takes them.
        batch: their batch size. dynamic: whether other batch sizes must work too.
        facts: what is known of it, text by key; formats with room for metadata store it.
    """

    network: nn.Module
    name: str
    forward: inspect.Signature
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    batch: int
    dynamic: bool
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def own(self) -> nn.Module:
        """The network itself, without what makes its outputs plain."""
        return self.network.network if isinstance(self.network, _Plain) else self.network

    @property
    def batches(self) -> tuple[int, ...]:
        """The batch sizes to compare on: for a dynamic batch at least two that are not the example's."""
        return tuple(size for size in BATCHES if size != self.batch) if self.dynamic else (self.batch,)

    def inputs(self, batch: int, seed: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword inputs like the example's with `batch` examples each, drawn with `seed`."""
        generator = torch.Generator().manual_seed(seed)

        def draw(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            return _like(value, batch if carries(value, self.batch) else None, generator)

        args, kwargs = pytree.tree_map(draw, (self.args, dict(self.kwargs)))
        return args, kwargs

    def program(self, *, training: bool = False) -> ExportedProgram:
        """The graph as torch.export captures it, in eval mode or in train mode.

        Raises:
            ExportError: it cannot be captured, or only for one batch size.
        """
        own = copy.deepcopy(self.network).train(training)
        shapes = self._dynamic_shapes(own) if self.dynamic else None
        args, kwargs = pytree.tree_map(lambda v: v.clone() if isinstance(v, Tensor) else v, (self.args, self.kwargs))
        try:
            with torch.random.fork_rng(devices=[]):
                return torch.export.export(own, args, dict(kwargs), dynamic_shapes=shapes)
        except CAPTURE_ERRORS as error:
            raise ExportError(self._refusal(error, training)) from error

    def _dynamic_shapes(self, network: nn.Module) -> dict[str, Any]:
        batch = Dim("batch")
        bound = inspect.signature(network.forward).bind(*self.args, **self.kwargs).arguments
        shapes: dict[str, Any] = pytree.tree_map(
            lambda value: {0: batch} if isinstance(value, Tensor) and carries(value, self.batch) else None, dict(bound)
        )
        return shapes

    def _refusal(self, error: Exception, training: bool) -> str:
        mode = "train" if training else "eval"
        reason = " ".join(str(error).split())[:400]
        if self.dynamic and "batch" in reason and ("onstraint" in reason or "specialized" in reason):
            found = re.search(r"your code specialized it to be a constant \(\d+\)|Not all values of .*", reason)
            return (
                f"{self.name} fixes its batch size in {mode} mode, so no other batch than {self.batch} can be "
                f"exported ({found[0] if found else reason}). Say static_batch=True (--static-batch) to export "
                "it for that size alone, or take the batch from the input's shape in forward()"
            )
        return (
            f"{self.name}: torch.export could not capture it in {mode} mode: {reason}. Control flow that depends on "
            "the data is the usual cause; rewrite it, or export format safetensors, which holds the weights alone"
        )


def subject_of(
    network: nn.Module,
    example_inputs: ExampleInputs,
    *,
    static_batch: bool = False,
    name: str | None = None,
    facts: Mapping[str, str] | None = None,
) -> Subject:
    """A copy of `network` with its example inputs; a batch of 1 is doubled where the batch is to be dynamic.

    Args:
        example_inputs: a tensor [B, ...], a tuple of positional inputs, or a dict of keyword inputs.

    Raises:
        ExportError: it does not run on the inputs, its outputs are of another kind, or no input has a batch axis.
    """
    what = name or type(network).__name__
    own = copy.deepcopy(network).cpu().eval()
    args, kwargs = _arguments(example_inputs)
    tensors = [value for value in pytree.tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
    if not tensors or tensors[0].dim() == 0:
        raise ExportError(f"{what}: the example inputs hold no tensor with a batch on its first axis")
    batch = len(tensors[0])
    if batch == 1 and not static_batch:
        args, kwargs = pytree.tree_map(
            lambda value: torch.cat([value, value]) if isinstance(value, Tensor) and carries(value, 1) else value,
            (args, kwargs),
        )
        batch = 2
    try:
        with torch.no_grad():
            output = own(*args, **kwargs)
    except CAPTURE_ERRORS as error:
        shapes = [list(value.shape) for value in tensors]
        raise ExportError(
            f"{what} does not run on example inputs of shape {shapes} (batch {batch}): {' '.join(str(error).split())}. "
            "Pass example_inputs as the network takes them"
        ) from error
    forward = inspect.signature(own.forward)
    if not _is_plain(output):
        plain(output, what)
        own = _made_plain(own, what)
    return Subject(own, what, forward, args, kwargs, batch, not static_batch, dict(facts or {}))


def carries(value: Tensor, batch: int) -> bool:
    """Whether the first axis of an input is the batch."""
    return value.dim() > 0 and len(value) == batch


def plain(output: Any, what: str) -> Any:
    """The same outputs in plain dicts, tuples and lists, as files can hold them.

    Raises:
        ExportError: a value of another kind among them.
    """
    if output is None or isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        return {str(key): plain(value, what) for key, value in output.items()}
    if isinstance(output, list):
        return [plain(value, what) for value in output]
    if isinstance(output, tuple):
        return tuple(plain(value, what) for value in output)
    raise ExportError(
        f"{what} returns a {type(output).__name__}; an export can hold tensors, and tuples, lists and dicts of them. "
        "Wrap the network in one that returns those"
    )


def _is_plain(output: Any) -> bool:
    if type(output) is dict:
        return all(isinstance(key, str) and _is_plain(value) for key, value in output.items())
    if type(output) in (tuple, list):
        return all(_is_plain(value) for value in output)
    return output is None or isinstance(output, Tensor)


class _Plain(nn.Module):
    """A network whose outputs are put into plain containers."""

    def __init__(self, network: nn.Module, what: str) -> None:
        super().__init__()
        self.network = network
        self._what = what

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return plain(self.network(*args, **kwargs), self._what)


def _made_plain(network: nn.Module, what: str) -> nn.Module:
    """The network behind plain outputs, with its own signature: torch.export reads the names of inputs there."""
    own = inspect.signature(network.forward)
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)

    def forward(self: _Plain, *args: Any, **kwargs: Any) -> Any:
        return _Plain.forward(self, *args, **kwargs)

    signature = own.replace(parameters=[itself, *own.parameters.values()])
    setattr(forward, "__signature__", signature)  # noqa: B010 - functions have it, their type does not say so
    kind: type[_Plain] = type("_Plain", (_Plain,), {"forward": forward})
    return kind(network, what).eval()


def _arguments(example_inputs: ExampleInputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def off(value: Any) -> Any:
        return value.detach().cpu() if isinstance(value, Tensor) else value

    if isinstance(example_inputs, Tensor):
        return (off(example_inputs),), {}
    if isinstance(example_inputs, Mapping):
        return (), pytree.tree_map(off, dict(example_inputs))
    if isinstance(example_inputs, tuple):
        return pytree.tree_map(off, example_inputs), {}
    raise ExportError(f"example_inputs: expected a tensor, a tuple or a dict, found {type(example_inputs).__name__}")


def _like(example: Tensor, batch: int | None, generator: torch.Generator) -> Tensor:
    """A tensor like the example with `batch` rows, or as many as it has: normal with its mean and deviation where it
    holds numbers with a fraction, its own rows in another order where it holds indices or flags."""
    count = len(example) if batch is None and example.dim() else batch
    if not example.is_floating_point():
        if batch is None:
            return example.clone()
        return example[torch.randint(len(example), (batch,), generator=generator)]
    shape = (count, *example.shape[1:]) if count is not None else ()
    noise = torch.randn(shape, generator=generator)
    deviation = example.double().std(correction=0).item() or 1.0
    return (noise * deviation + example.double().mean().item()).to(example.dtype)


RunFn = Callable[..., Any]
"""Runs an exported network on positional and keyword inputs and returns its outputs in the student's structure."""
