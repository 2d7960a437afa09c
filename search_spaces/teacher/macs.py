"""Multiply-accumulates of a network, counted by PyTorch's own flop counter on a copy without values."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.teacher.trace import ExampleInputs, ForwardFn


def count_macs(network: nn.Module, example_inputs: ExampleInputs, forward_fn: ForwardFn | None = None) -> int:
    """MACs of convolutions and matrix products for the whole example batch, as in evaluation mode.

    A copy without values (on the meta device) is run, so that nothing is computed and the network is not touched; a
    network that looks at values is copied as it is.

    Raises:
        RuntimeError: the network does not run on these inputs.
    """
    try:
        return _flops(_copy(network, meta=True), _without_values(example_inputs), forward_fn) // 2
    except (RuntimeError, NotImplementedError):
        # Without values some forwards cannot run (`.item()`, an operation that has no meta form).
        return _flops(_copy(network, meta=False), example_inputs, forward_fn) // 2


def _flops(network: nn.Module, inputs: ExampleInputs, forward_fn: ForwardFn | None) -> int:
    network.eval()
    # Attention as the matrix products that it is: the counter does not know the fused kernel of the CPU.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        if forward_fn is not None:
            forward_fn(network, inputs)
        elif isinstance(inputs, Tensor):
            network(inputs)
        elif isinstance(inputs, Mapping):
            network(**inputs)
        else:
            network(*inputs)
    return int(counter.get_total_flops())


def _without_values(inputs: ExampleInputs) -> ExampleInputs:
    if isinstance(inputs, Tensor):
        return _meta(inputs)
    if isinstance(inputs, Mapping):
        return {name: _meta(value) for name, value in inputs.items()}
    return tuple(_meta(value) for value in inputs)


def _meta(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="meta")


def _copy(network: nn.Module, *, meta: bool) -> nn.Module:
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
