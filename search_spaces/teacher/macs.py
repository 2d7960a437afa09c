"""Multiply-accumulates of a network, counted by PyTorch's own flop counter on a copy without values."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.teacher.capture import ExampleInputs, ForwardFn


def count_macs(network: nn.Module, example_inputs: ExampleInputs, forward_fn: ForwardFn | None = None) -> int:
    """MACs of convolutions and matrix products for the whole example batch, as in evaluation mode.

    A copy without values (on the meta device) is run, so that nothing is computed and the network is not touched; a
    network that looks at values is copied as it is.

    Raises:
        RuntimeError: the network does not run on these inputs.
    """
    try:
        return _flops(meta_twin(network), without_values(example_inputs), forward_fn) // 2
    except (RuntimeError, NotImplementedError):
        # Without values some forwards cannot run (`.item()`, an operation that has no meta form).
        return _flops(meta_twin(network, meta=False), example_inputs, forward_fn) // 2


def _flops(network: nn.Module, inputs: ExampleInputs, forward_fn: ForwardFn | None) -> int:
    network.eval()
    # Attention as the matrix products that it is: the counter does not know the fused kernel of the CPU.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call(network, inputs, forward_fn)
    return int(counter.get_total_flops())


@dataclass(frozen=True)
class DryRun:
    """What a run without values shows: the shapes of the outputs, whether values were needed after all, and the leaf
    modules that give something else than one tensor."""

    shapes: tuple[tuple[int, ...], ...]
    needs_values: bool
    odd: frozenset[str]


def dry_run(network: nn.Module, inputs: ExampleInputs, forward_fn: ForwardFn | None = None) -> DryRun:
    """Runs a copy of a network in evaluation mode, without values where it can do without.

    Raises:
        RuntimeError: the network does not run on these inputs.
    """
    try:
        shapes, odd = _run(meta_twin(network), without_values(inputs), forward_fn)
    except (RuntimeError, NotImplementedError):
        shapes, odd = _run(meta_twin(network, meta=False), inputs, forward_fn)
        return DryRun(shapes, True, odd)
    return DryRun(shapes, False, odd)


def _run(
    network: nn.Module, inputs: ExampleInputs, forward_fn: ForwardFn | None
) -> tuple[tuple[tuple[int, ...], ...], frozenset[str]]:
    odd: set[str] = set()

    def watch(name: str, module: nn.Module) -> None:
        def note(_: nn.Module, __: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                odd.add(name)

        module.register_forward_hook(note)

    for name, module in network.eval().named_modules():
        if not any(True for _ in module.children()):
            watch(name, module)
    with torch.no_grad():
        outputs = call(network, inputs, forward_fn)
    return tuple(tuple(value.shape) for value in tensors(outputs)), frozenset(odd)


def tensors(outputs: Any) -> list[Tensor]:
    """The tensors in whatever a network gives, in order."""
    return [leaf for leaf in tree_flatten(outputs)[0] if isinstance(leaf, Tensor)]


def call(network: nn.Module, inputs: ExampleInputs, forward_fn: ForwardFn | None = None) -> Any:
    """What a network gives for inputs: a tensor, or the tuple or dict of its arguments."""
    if forward_fn is not None:
        return forward_fn(network, inputs)
    if isinstance(inputs, Tensor):
        return network(inputs)
    if isinstance(inputs, Mapping):
        return network(**inputs)
    return network(*inputs)


def without_values(inputs: ExampleInputs) -> ExampleInputs:
    """Inputs of the same shapes on the meta device."""
    if isinstance(inputs, Tensor):
        return _meta(inputs)
    if isinstance(inputs, Mapping):
        return {name: _meta(value) for name, value in inputs.items()}
    return tuple(_meta(value) for value in inputs)


def _meta(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="meta")


def meta_twin(network: nn.Module, *, meta: bool = True) -> nn.Module:
    """A copy without the user's hooks, whose parameters and buffers hold no values where `meta`."""
    memo: dict[int, Any] = {}
    if meta:
        # Filling deepcopy's memo puts the empty tensors in place of the real ones, which are then never copied.
        for parameter in network.parameters():
            memo[id(parameter)] = nn.Parameter(_meta(parameter.detach()), requires_grad=False)
        for buffer in network.buffers():
            memo[id(buffer)] = _meta(buffer)
    twin: nn.Module = copy.deepcopy(network, memo)
    for module in twin.modules():
        for table in (module._forward_hooks, module._forward_pre_hooks):
            for key, hook in list(table.items()):
                # torch's own hooks compute weights (weight norm, pruning) and must run; the user's must not see this.
                owner = getattr(hook, "__module__", type(hook).__module__) or ""
                if not owner.startswith("torch."):
                    del table[key]
    return twin
