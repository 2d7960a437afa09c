"""The size and the work of a network, counted without running it on data."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def parameters(network: nn.Module) -> int:
    """The number of parameters, trained or frozen; a shared one counts once, buffers do not count."""
    return sum(parameter.numel() for parameter in network.parameters())


def size_mb(network: nn.Module) -> float:
    """Size of parameters and buffers in MB (10^6 bytes), at the precision that they are stored in."""
    tensors = [*network.parameters(), *network.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e6


def macs(network: nn.Module, example_inputs: Tensor | tuple[Tensor, ...]) -> int:
    """Multiply-accumulates of convolutions and matrix products for one example, as in evaluation mode.

    The batch of `example_inputs` [B, ...] is divided out. A copy without values (on the meta device) is run, so that
    nothing is computed and the network is not touched; a network that looks at values is copied as it is.

    Raises:
        RuntimeError: the network does not run on these inputs.
    """
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    try:
        flops = _flops(_copy(network, meta=True), tuple(_meta(value) for value in inputs))
    except (RuntimeError, NotImplementedError):
        # Without values some forwards cannot run (`.item()`, an operation that has no meta form).
        flops = _flops(_copy(network, meta=False), inputs)
    return flops // 2 // max(1, len(inputs[0]))


def _flops(network: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    network.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(*inputs)
    return int(counter.get_total_flops())


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
